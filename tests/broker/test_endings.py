"""How executions of real tasks end, in every pool: done, again, dead, cancelled."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start


@pytest.mark.parametrize("pool", POOLS)
def test_every_ending_leaves_its_events_and_no_key(costly_harness: BrokerHarness, pool: str) -> None:
    """One worker, one of each: a success, Celery's retry, a retry, a snooze, a failure, a dead letter."""
    harness = costly_harness
    done, later = harness.send("nothing"), harness.send("record", countdown=0.5)
    retried, again = harness.send("retry", 0.05, 2), harness.send("redeliver", 0.05, 2)
    snoozed, failed, dead = harness.send("snooze", 0.05, 2), harness.send("fail"), harness.send("bury")
    harness.worker(pool, 2)
    wait_for(lambda: len(harness.dead_letters()) == 1, 60, "the dead letter was stored")
    harness.wait_ended([later])
    harness.wait_empty()
    assert harness.states(done) == ["queued", "started", "succeeded"]
    assert harness.states(later) == ["scheduled", "started", "succeeded"]
    tries = ["queued", "started", "retrying", "started", "retrying", "started", "succeeded"]
    assert harness.states(retried) == harness.states(again) == tries
    assert harness.states(snoozed) == [state.replace("retrying", "snoozed") for state in tries]
    assert [event["n"] for event in harness.events(again)] == ["1", "1", "1", "2", "2", "3", "3"]
    assert {event["n"] for event in harness.events(snoozed)} == {"1"}
    assert harness.states(failed) == harness.states(dead) == ["queued", "started", "failed"]
    assert {line.split()[2] for line in harness.lines() if line.startswith(f"try {retried}")} == {"0", "1", "2"}


def test_details_of_events_tell_what_the_audit_needs(harness: BrokerHarness) -> None:
    harness.worker("threads", 1)
    failed = harness.send("fail", "oh no")
    wait_for(lambda: harness.states(failed)[-1:] == ["failed"], 60, "it failed")
    queued, started, ended = (json.loads(event["d"]) for event in harness.events(failed))
    assert (queued["task"], queued["priority"]) == ("fail", 5)
    assert started["worker"] == "worker@test"
    assert (ended["error"], ended["message"]) == ("ValueError", "oh no")
    assert "ValueError: oh no" in ended["traceback"]
    assert ended["runtime"] >= 0


def test_a_dead_letter_holds_the_original_message(costly_harness: BrokerHarness) -> None:
    harness = costly_harness
    run = harness.send("bury", "why")
    (before,) = harness.control.peek("celery")
    harness.worker("threads", 1)
    (letter,) = wait_for(harness.dead_letters, 60, "the letter was stored")
    run_id, reason, error, body = letter.split()
    assert (run_id, reason, error) == (run, "exhausted", "ValueError")
    assert base64.b64decode(body) == before.payload


def test_a_hard_time_limit_is_a_dead_letter_at_once(costly_harness: BrokerHarness) -> None:
    harness = costly_harness
    run = harness.send("slow")
    harness.worker("prefork", 1)
    (letter,) = wait_for(harness.dead_letters, 60, "the letter was stored")
    assert letter.startswith(f"{run} time_limit TimeLimitExceeded")
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "failed"]
    assert len(harness.dead_letters()) == 1


@pytest.mark.parametrize("pool", POOLS)
def test_what_no_worker_can_read_goes_to_the_dead_letters_and_the_worker_goes_on(
    harness: BrokerHarness, pool: str
) -> None:
    """Undecodable bytes, wrong envelopes of many kinds, and a task that nobody registered."""
    worker = harness.worker(pool, 1)
    harness.wait_listening()
    unknown = harness.send("no.such.task", 1)
    for run, payload in _broken_payloads().items():
        _store(harness, run, payload)
    good = harness.send("record")
    harness.wait_ended([good])
    wanted = {unknown, *_broken_payloads()}
    wait_for(
        lambda: {one.split()[0] for one in harness.dead_letters()} == wanted,
        60,
        "all letters",
        lambda: _missing(harness, wanted),
    )
    letters = {letter.split()[0]: letter.split() for letter in harness.dead_letters()}
    assert letters[unknown][1] == "unknown_task"
    for run, payload in _broken_payloads().items():
        assert base64.b64decode(letters[run][3]) == payload
    assert {letters[run][1] for run in _broken_payloads()} == {"malformed"}
    harness.wait_empty()
    assert worker.is_running


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_leaves_its_process_is_not_stuck(costly_harness: BrokerHarness, pool: str) -> None:
    """`sys.exit` in a task ends no worker, and the message does not stay with it for ever."""
    harness = costly_harness
    harness.settings = replace(harness.settings, worker_max_stalls=1)
    worker = harness.worker(pool, 1)
    leaving, good = harness.send("leave"), harness.send("record")
    harness.wait_ended([good])
    wait_for(lambda: harness.states(leaving)[-1:] == ["failed"], 60, "it failed", lambda: str(harness.states(leaving)))
    (letter,) = wait_for(harness.dead_letters, 60, "the letter was stored")
    assert letter.startswith(f"{leaving} worker_lost")
    harness.wait_empty()
    assert worker.is_running


@pytest.mark.parametrize("pool", POOLS)
def test_a_revoked_run_never_starts_whoever_was_there_to_hear_it(costly_harness: BrokerHarness, pool: str) -> None:
    """Nobody listens when the waiting and the delayed one are revoked; the workers start later."""
    harness = costly_harness
    waiting, delayed = harness.send("record"), harness.send("record", countdown=3600)
    expired, kept = harness.send("record", expires=0.01), harness.send("record")
    for run in (waiting, delayed):
        harness.app.control.revoke(run)
    harness.worker(pool, 1)
    harness.wait_ended([kept])
    harness.wait_empty()
    assert harness.started() == [kept]
    assert harness.states(waiting) == ["queued", "cancelled"]
    assert harness.states(delayed) == ["scheduled", "cancelled"]
    assert harness.states(expired) == ["queued", "cancelled"]


def test_a_running_task_is_terminated_and_recorded_as_cancelled(harness: BrokerHarness) -> None:
    run = harness.send("hold")
    harness.worker("prefork", 1)
    harness.wait_started()
    harness.app.control.terminate(run)
    wait_for(lambda: harness.states(run)[-1] == "cancelled", 60, "it was cancelled")
    harness.wait_empty()


def _missing(harness: BrokerHarness, wanted: set[str]) -> str:
    return f"without a letter: {wanted - {letter.split()[0] for letter in harness.dead_letters()}}"


def _broken_payloads() -> dict[str, bytes]:
    sound: dict[str, Any] = {
        "body": "[[], {}, {}]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "x", "task": "bury", "lang": "py"},
        "properties": {"delivery_tag": "x", "delivery_info": {}, "body_encoding": "utf-8"},
    }

    def broken(part: str, **changes: Any) -> bytes:
        return json.dumps({**sound, part: {**sound[part], **changes}}).encode()

    return {
        "no-json": b"\xff\xfe not json",
        "no-envelope": b'{"some": "thing"}',
        "no-object": b"7",
        "deep": b"[" * 100_000,
        "wrong-body": json.dumps({**sound, "body": "{no json"}).encode(),
        "wrong-content-type": json.dumps({**sound, "content-type": "application/x-python-serialize"}).encode(),
        "wrong-base64": json.dumps(
            {**sound, "properties": {**sound["properties"], "body_encoding": "base64"}}
        ).encode(),
        "unknown-encoding": broken("properties", body_encoding="rot13"),
        "task-is-a-list": broken("headers", task=["bury"]),
        "no-id": json.dumps({**sound, "headers": {"task": "bury", "lang": "py"}}).encode(),
        "facts-are-a-number": broken("headers", taskyard=5),
        "time-limit-is-a-number": broken("headers", timelimit=5),
        "expiry-is-no-time": broken("headers", expires="soon"),
        "body-is-null": json.dumps({**sound, "body": "null"}).encode(),
        "body-is-too-short": json.dumps({**sound, "body": "[[]]"}).encode(),
    }


def _store(harness: BrokerHarness, run: str, payload: bytes) -> None:
    with redis.Redis(port=harness.server.port) as client:
        fields = {"m": payload, "q": "celery", "p": "5", "i": run, "n": run, "t": "1"}
        client.hset(f"taskyard:message:{run}", mapping=fields)
        client.zadd("taskyard:waiting:celery", {run: 1})
