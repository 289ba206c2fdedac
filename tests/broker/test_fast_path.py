"""
With task events on (`-E`) Celery's own code takes messages to the pool, without them ours: no user can tell which.

Two workers of one pool get the same work; of each run all is compared that somebody could look at.
"""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from taskyard.broker.protocol.header import BURY_TASK
from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import wait_for
from tests.workers import Worker

pytestmark = pytest.mark.timeout(300)  # many processes start
SLOTS = 2
ENDS = {"succeeded", "failed", "cancelled"}
PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
MOMENTS = {"runtime", "pid", "time_start", "worker_pid"}  # differ from run to run: compared by being there


class Side:
    """One of the two workers, on a queue of its own, and the runs that it was given."""

    def __init__(self, harness: BrokerHarness, name: str, pool: str, *more: str) -> None:
        self.harness, self.name, self.pool, self.more = harness, name, pool, more
        self.runs: dict[str, str] = {}  # what it is for -> run id
        self.worker: Worker

    def start(self) -> None:
        """Start the worker; what was sent and revoked before is the same for both."""
        self.worker = self.harness.worker(
            self.pool,
            SLOTS,
            name=self.name,
            queues=f"{self.name},dead-letter",
            lease_ms=30_000,  # none ends in a test that waits for a busy machine
            module="tests.broker.signals_app",
            more=self.more,
            wait_ready=False,
            RECORD_SIGNALS="1",
            PREFETCH="4",
            IGNORE_RESULTS="0",
        )

    def send(self, label: str, task: str, *args: Any, **options: Any) -> None:
        """Send a task whose result is kept, if it says nothing else."""
        options.setdefault("ignore_result", False)
        self.runs[label] = self.harness.send(task, *args, queue=self.name, **options)

    def wait_ended(self, labels: Iterable[str]) -> None:
        """Wait until the outcomes of these runs are in the stream."""
        wanted = {self.runs[label] for label in labels}

        def are_over() -> bool:
            return wanted <= {event["id"] for event in self.harness.events() if event["e"] in ENDS}

        wait_for(are_over, 60, "all outcomes", self.worker.tail)

    def ask(self, what: str) -> Any:
        """What `inspect` says of this worker, without what is true of one process only."""
        inspect = self.harness.app.control.inspect(destination=[f"{self.name}@test"], timeout=20, limit=1)
        (answer,) = getattr(inspect, what)().values()
        if what == "stats":
            pool = {name: answer["pool"].get(name) for name in ("implementation", "max-concurrency", "threads")}
            total = {name: count for name, count in answer["total"].items() if name != BURY_TASK}
            answer = {"pool": pool, "total": total, "prefetch": answer["prefetch_count"]}
        plain = self.plain(answer)
        return sorted(plain, key=str) if isinstance(plain, list) else plain

    def tell(self, command: str, **options: Any) -> Any:
        """The answer of this worker to a command of remote control."""
        answers: Any = self.harness.app.control.broadcast(
            command, destination=[f"{self.name}@test"], reply=True, timeout=20, limit=1, **options
        )
        return self.plain([value for answer in answers for value in answer.values()])

    def seen(self) -> dict[str, Any]:
        """Of each run, by what it is for: all that somebody could look at."""
        return {label: self._seen_of(run) for label, run in self.runs.items()}

    def _seen_of(self, run: str) -> dict[str, Any]:
        harness = self.harness
        events = [{**event, "d": json.loads(event["d"] or "{}"), "at": ""} for event in harness.events(run)]
        meta = harness.broker.get(f"{harness.prefix}celery-task-meta-{run}")
        said = [line for line in self.worker.log.read_text().splitlines() if run in line and BURY_TASK not in line]
        found = {
            "events": events,
            "signals": _by_process([json.loads(line) for line in harness.records.lrange(f"signals:{run}", 0, -1)]),
            "result": None if meta is None else json.loads(str(meta)),
            "letters": [letter.split()[1:3] for letter in harness.dead_letters() if letter.startswith(run)],
            "started": harness.started().count(run),
            "said": [re.sub(r"^\[[^]]* ([A-Z]+)/(\w+)[^]]*\]", r"\1 \2", line) for line in said],
        }
        return dict(self.plain(found))

    def plain(self, value: Any) -> Any:
        """The same without what differs from run to run."""
        if isinstance(value, dict):
            facts = {str(name): found is not None if name in MOMENTS else found for name, found in value.items()}
            return {name: self.plain(found) for name, found in facts.items() if name not in {"date_done", "group_id"}}
        if isinstance(value, (list, tuple)):
            return [self.plain(one) for one in value]
        return self._plain_text(value) if isinstance(value, str) else value

    def _plain_text(self, text: str) -> str:
        for label, run in self.runs.items():
            text = text.replace(run, f"<{label}>")
        text = text.replace(self.name, "<side>")
        text = re.sub(r"^[\w.-]+:\d+$", "<process>", text)
        text = re.sub(r"((?:waited_ms|expiration)\W+)\d+", r"\1N", text)
        return re.sub(r"\d[\d.e-]*s\b", "Ns", text)


def _by_process(signals: list[Any]) -> list[list[Any]]:
    """The signals of the worker's main process and those of its pool's: which of two processes is first is chance."""
    mains = signals[0][0] if signals else None
    return [[facts for pid, facts in signals if (pid == mains) is is_main] for is_main in (True, False)]


def send_work(side: Side) -> None:
    """One of each kind of task, and of each way to end."""
    link = side.harness.app.signature("nothing", queue=side.name, task_id=f"link-{side.name}")
    side.runs["link"], side.runs["errback"] = f"link-{side.name}", f"errback-{side.name}"
    side.send("done", "nothing", 7, link=link)
    side.send("ignored result", "nothing", 7, ignore_result=True)
    side.send("context", "show", 1, [2], headers={"mine": "x"}, expires=FUTURE)
    side.send("retried", "retry", 0.01, 2)
    side.send("exhausted", "retry", 0.01, 9)
    side.send("redelivered", "redeliver", 0.01, 2)
    side.send("snoozed", "snooze", 0.01, 2)
    errback = side.harness.app.signature("nothing", (1,), queue=side.name, task_id=side.runs["errback"], immutable=True)
    side.send("failed", "fail", "no", link_error=errback)
    side.send("buried", "bury", "why")
    for flag in (False, True):
        side.send(f"early {flag}", "early", kwargs={"fails": flag})
        side.send(f"rejected {flag}", "reject", kwargs={"requeue": flag})
    side.send("limited", "limited")
    side.send("ignored", "ignore")
    side.send("wrong arguments", "nothing", 1, 2, 3)
    side.send("unknown", "no.such.task")
    side.send("later", "nothing", 8, eta=FUTURE)
    side.send("expired", "nothing", 9, expires=PAST)
    side.send("revoked", "nothing", 10)
    side.harness.app.control.revoke(side.runs["revoked"])


def operate(side: Side) -> list[Any]:
    """Look at and revoke what runs and what waits inside the worker; returns all answers."""
    for label in ("running", "stopped"):
        side.send(label, "hold")
        wait_for(lambda label=label: "started" in side.harness.states(side.runs[label]), 30, "it runs")  # type: ignore[misc]  # mypy cannot infer the lambda
    for label in ("waiting", "revoked inside", "stopped inside"):
        side.send(label, "record", label)
    wait_for(lambda: side.harness.control.counts(side.name).active == 5, 30, "the worker holds all")
    wait_for(lambda: len(side.ask("reserved")) == 3, 30, "it has read all")
    answers = [side.ask(what) for what in ("active", "reserved", "scheduled", "stats", "registered")]
    answers.append(side.tell("revoke", arguments={"task_id": side.runs["revoked inside"]}))
    answers.append(side.tell("revoke", arguments={"task_id": side.runs["stopped"], "terminate": True}))
    answers.append(side.tell("revoke", arguments={"task_id": side.runs["stopped inside"], "terminate": True}))
    return answers


@pytest.mark.parametrize("pool", POOLS)
def test_nobody_can_tell_our_way_to_the_pool_from_celerys(costly_harness: BrokerHarness, pool: str) -> None:
    harness = costly_harness
    sides = Side(harness, "side1", pool), Side(harness, "side2", pool, "-E")
    for side in sides:
        send_work(side)
        harness.control.promote(side.runs["later"])  # its worker sees a message whose time has come
    for side in sides:
        side.start()
    for side in sides:
        side.wait_ended(side.runs)
    answers: list[Any] = [[], []]
    if pool != "solo":  # it answers nothing while a task runs
        answers = [operate(side) for side in sides]
        harness.release()
        for side in sides:
            side.wait_ended(side.runs)
    answers = [[*told, side.ask("stats"), side.ask("active")] for told, side in zip(answers, sides, strict=True)]
    harness.wait_empty()
    ours, theirs = sides
    for label in {"revoked inside", "stopped inside"} & ours.runs.keys():
        assert harness.states(ours.runs[label]) == ["queued", "cancelled"]
    assert answers[0] == answers[1]
    wait_for(lambda: ours.seen() == theirs.seen(), 10, "both were seen alike", lambda: _differences(ours, theirs))
    decoded = {side.name: harness.records.hget(f"content-types:{side.name}@test", "nothing") for side in sides}
    assert decoded["side2"] == "application/json"  # Celery's way gives the pool bytes
    assert decoded["side1"] == ("application/json" if pool == "prefork" else "None")


def _differences(ours: Side, theirs: Side) -> str:
    one, other = ours.seen(), theirs.seen()
    return "\n".join(
        f"{label}, {fact}:\n  ours   {one[label][fact]}\n  theirs {other[label][fact]}"
        for label in one
        for fact in one[label]
        if one[label][fact] != other[label][fact]
    )
