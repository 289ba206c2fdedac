"""How executions of real tasks end, in every pool: done, again, dead, cancelled."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from tests.broker.bed import POOLS, Bed
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start


@pytest.mark.parametrize("pool", POOLS)
def test_every_ending_leaves_its_events_and_no_key(costly_bed: Bed, pool: str) -> None:
    """One worker, one of each: a success, Celery's retry, a retry, a snooze, a failure, a dead letter."""
    bed = costly_bed
    done, later = bed.send("nothing"), bed.send("record", countdown=0.5)
    retried, again = bed.send("retry", 0.05, 2), bed.send("redeliver", 0.05, 2)
    snoozed, failed, dead = bed.send("snooze", 0.05, 2), bed.send("fail"), bed.send("bury")
    bed.worker(pool, 2)
    wait_for(lambda: len(bed.letters()) == 1, 60, "the dead letter was stored")
    bed.wait_ended([later])
    bed.wait_empty()
    assert bed.states(done) == ["queued", "started", "succeeded"]
    assert bed.states(later) == ["scheduled", "started", "succeeded"]
    tries = ["queued", "started", "retrying", "started", "retrying", "started", "succeeded"]
    assert bed.states(retried) == bed.states(again) == tries
    assert bed.states(snoozed) == [state.replace("retrying", "snoozed") for state in tries]
    assert [event["n"] for event in bed.events(again)] == ["1", "1", "1", "2", "2", "3", "3"]
    assert {event["n"] for event in bed.events(snoozed)} == {"1"}
    assert bed.states(failed) == bed.states(dead) == ["queued", "started", "failed"]
    assert {line.split()[2] for line in bed.lines() if line.startswith(f"try {retried}")} == {"0", "1", "2"}


def test_details_of_events_tell_what_the_audit_needs(bed: Bed) -> None:
    bed.worker("threads", 1)
    failed = bed.send("fail", "oh no")
    wait_for(lambda: bed.states(failed)[-1:] == ["failed"], 60, "it failed")
    queued, started, ended = (json.loads(event["d"]) for event in bed.events(failed))
    assert (queued["task"], queued["priority"]) == ("fail", 5)
    assert started["worker"] == "worker@test"
    assert (ended["error"], ended["message"]) == ("ValueError", "oh no")
    assert "ValueError: oh no" in ended["traceback"]
    assert ended["runtime"] >= 0


def test_a_dead_letter_holds_the_original_message(costly_bed: Bed) -> None:
    bed = costly_bed
    run = bed.send("bury", "why")
    (before,) = bed.control.peek("celery")
    bed.worker("threads", 1)
    (letter,) = wait_for(bed.letters, 60, "the letter was stored")
    run_id, reason, error, body = letter.split()
    assert (run_id, reason, error) == (run, "exhausted", "ValueError")
    assert base64.b64decode(body) == before.payload


def test_a_hard_time_limit_is_a_dead_letter_at_once(costly_bed: Bed) -> None:
    bed = costly_bed
    run = bed.send("slow")
    bed.worker("prefork", 1)
    (letter,) = wait_for(bed.letters, 60, "the letter was stored")
    assert letter.startswith(f"{run} time_limit TimeLimitExceeded")
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "failed"]
    assert len(bed.letters()) == 1


@pytest.mark.parametrize("pool", POOLS)
def test_what_no_worker_can_read_goes_to_the_dead_letters_and_the_worker_goes_on(bed: Bed, pool: str) -> None:
    """Undecodable bytes, wrong envelopes of many kinds, and a task that nobody registered."""
    worker = bed.worker(pool, 1)
    bed.wait_listening()
    unknown = bed.send("no.such.task", 1)
    for run, payload in _broken_payloads().items():
        _store(bed, run, payload)
    good = bed.send("record")
    bed.wait_ended([good])
    wanted = {unknown, *_broken_payloads()}
    wait_for(
        lambda: {one.split()[0] for one in bed.letters()} == wanted, 60, "all letters", lambda: _missing(bed, wanted)
    )
    letters = {letter.split()[0]: letter.split() for letter in bed.letters()}
    assert letters[unknown][1] == "unknown_task"
    for run, payload in _broken_payloads().items():
        assert base64.b64decode(letters[run][3]) == payload
    assert {letters[run][1] for run in _broken_payloads()} == {"malformed"}
    bed.wait_empty()
    assert worker.is_running


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_leaves_its_process_is_not_stuck(costly_bed: Bed, pool: str) -> None:
    """`sys.exit` in a task ends no worker, and the message does not stay with it for ever."""
    bed = costly_bed
    bed.settings = replace(bed.settings, worker_max_stalls=1)
    worker = bed.worker(pool, 1)
    leaving, good = bed.send("leave"), bed.send("record")
    bed.wait_ended([good])
    wait_for(lambda: bed.states(leaving)[-1:] == ["failed"], 60, "it failed", lambda: str(bed.states(leaving)))
    (letter,) = wait_for(bed.letters, 60, "the letter was stored")
    assert letter.startswith(f"{leaving} worker_lost")
    bed.wait_empty()
    assert worker.is_running


@pytest.mark.parametrize("pool", POOLS)
def test_a_revoked_run_never_starts_whoever_was_there_to_hear_it(costly_bed: Bed, pool: str) -> None:
    """Nobody listens when the waiting and the delayed one are revoked; the workers start later."""
    bed = costly_bed
    waiting, delayed = bed.send("record"), bed.send("record", countdown=3600)
    expired, kept = bed.send("record", expires=0.01), bed.send("record")
    for run in (waiting, delayed):
        bed.app.control.revoke(run)
    bed.worker(pool, 1)
    bed.wait_ended([kept])
    bed.wait_empty()
    assert bed.started() == [kept]
    assert bed.states(waiting) == ["queued", "cancelled"]
    assert bed.states(delayed) == ["scheduled", "cancelled"]
    assert bed.states(expired) == ["queued", "cancelled"]


def test_a_running_task_is_terminated_and_recorded_as_cancelled(bed: Bed) -> None:
    run = bed.send("hold")
    bed.worker("prefork", 1)
    bed.wait_started()
    bed.app.control.terminate(run)
    wait_for(lambda: bed.states(run)[-1] == "cancelled", 60, "it was cancelled")
    bed.wait_empty()


def _missing(bed: Bed, wanted: set[str]) -> str:
    return f"without a letter: {wanted - {letter.split()[0] for letter in bed.letters()}}"


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


def _store(bed: Bed, run: str, payload: bytes) -> None:
    with redis.Redis(port=bed.server.port) as client:
        fields = {"m": payload, "q": "celery", "p": "5", "i": run, "n": run, "t": "1"}
        client.hset(f"taskyard:message:{run}", mapping=fields)
        client.zadd("taskyard:waiting:celery", {run: 1})
