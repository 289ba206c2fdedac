"""Any order of operations keeps every message in exactly one place, and the counts true."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from taskyard.broker.protocol.envelope import TakenMessage
from tests.broker.script_driver import PREFIX, ScriptDriver
from tests.servers import Server

HOUR = timedelta(hours=1)
LIMITS = ("at once", "at once for each key", "rate", "rate of each key")
GROUP_KEYS = ("g", "h")
GROUPS = (None, None, *GROUP_KEYS)


class Broker(RuleBasedStateMachine):
    """The model: which runs exist, where each should be, and who holds which lease."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.driver = ScriptDriver(self.client, max_stalls=2)
        self.priorities: dict[str, int] = {}
        self.waiting: dict[str, str | None] = {}  # run -> group
        self.delayed: dict[str, str | None] = {}
        self.held: list[tuple[TakenMessage, str | None]] = []
        self.alone: set[str] = set()  # delivery tags of hand-outs to a worker that had no other message
        self.late: list[TakenMessage] = []  # hand-outs whose lease was lost
        self.dead: set[str] = set()
        self.limit: int | None = None
        self.key_limit: int | None = None
        self.has_rate = self.has_key_rate = False  # one in an hour
        self.is_spent = False  # the queue's one start of this hour was used
        self.spent: set[str | None] = set()  # groups whose one start was used
        self.is_paused = False

    @rule(count=st.integers(1, 4), priority=st.integers(0, 9), group=st.sampled_from(GROUPS), lifo=st.booleans())
    def put(self, count: int, priority: int, group: str | None, lifo: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Put some."""
        for _ in range(count):
            run = self.driver.next_id()
            self.driver.put(run, priority=priority, group_key=group, lifo=lifo)
            self.waiting[run] = group
            self.priorities[run] = priority

    @rule(priority=st.integers(0, 9), group=st.sampled_from(GROUPS))
    def put_delayed(self, priority: int, group: str | None) -> None:
        """Put one that is due in a thousand years."""
        run = self.driver.next_id()
        self.driver.put(run, priority=priority, eta="2999-01-01T00:00:00+00:00", group_key=group)
        self.delayed[run] = group
        self.priorities[run] = priority

    @rule()
    def time_passes(self) -> None:
        """All delays end."""
        for run in self.delayed:
            self.driver.make_due(run)

    @rule(want=st.integers(1, 8))
    def take(self, want: int) -> None:
        """Take some, and expect just so many, none of which overtakes one of a higher priority that may start."""
        due = [run for run in self.delayed if (self.client.zscore(f"{PREFIX}delayed:q", run) or 0) <= 1]
        taken = self.driver.take(want)
        for run in due:
            self.waiting[run] = self.delayed.pop(run)
        assert len(taken) == self.expected(want)
        self.is_spent |= self.has_rate and bool(taken)
        self.alone |= {message.delivery_tag for message in taken if len(taken) == 1}
        for message in taken:
            may_start = [run for run, its_group in self.waiting.items() if self.room_of(its_group)]
            assert self.priorities[message.run_id] == max(self.priorities[run] for run in may_start)
            group = self.waiting.pop(message.run_id)
            self.held.append((message, group))
            if self.has_key_rate and group:
                self.spent.add(group)

    def expected(self, want: int) -> int:
        """How many of those that wait may start now, by all limits."""
        waiting = Counter(self.waiting.values())
        may_start = waiting.pop(None, 0) + sum(min(count, self.room_of(group)) for group, count in waiting.items())
        room = max(0, self.limit - len(self.held)) if self.limit is not None else want
        allowed = (0 if self.is_spent else 1) if self.has_rate else want
        return 0 if self.is_paused else min(want, room, allowed, may_start)

    def room_of(self, group: str | None) -> int:
        """How many of a group may start now."""
        if group is None:
            return 1000
        running = sum(1 for _, its_group in self.held if its_group == group)
        room = max(0, self.key_limit - running) if self.key_limit is not None else 1000
        return min(room, 0 if group in self.spent else 1) if self.has_key_rate else room

    def places(self) -> dict[str, list[str]]:
        """The tags in each of the queue's sorted sets."""
        kinds = ("waiting", "grouped", "delayed", "active", "dead")
        with self.client.pipeline() as pipeline:
            for kind in kinds:
                pipeline.zrange(f"{PREFIX}{kind}:q", 0, -1)
            answers: Any = pipeline.execute()
        return {kind: [tag.decode() for tag in tags] for kind, tags in zip(kinds, answers, strict=True)}

    def _pick(self, data: st.DataObject) -> tuple[TakenMessage, str | None] | None:
        return self.held.pop(data.draw(st.integers(0, len(self.held) - 1))) if self.held else None

    @rule(data=st.data(), how=st.sampled_from(["done", "now", "later", "returned", "dead"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """One is done, comes back now or later, is returned, or is dead."""
        if not (picked := self._pick(data)):
            return
        message, group = picked
        if how == "done":
            assert self.driver.done(message)
        elif how == "dead":
            assert self.driver.bury(message)
            self.dead.add(message.run_id)
        elif how == "later":
            assert self.driver.again(message, 3_600_000)
            self.delayed[message.run_id] = group
        else:
            assert self.driver.again(message) if how == "now" else self.driver.give_back(message)
            self.waiting[message.run_id] = group

    @rule(data=st.data())
    def lease_ends(self, data: st.DataObject) -> None:
        """A holder vanishes."""
        if picked := self._pick(data):
            message, group = picked
            self.driver.expire(message)
            self.late.append(message)
            was_paused, self.is_paused = self.is_paused, True
            self.driver.control.pause("q")
            assert self.driver.take() == []  # takes back, hands out nothing
            if not was_paused:
                self.driver.control.resume("q")
            self.is_paused = was_paused
            for run in [run for run in self.delayed if not self.client.zscore(f"{PREFIX}delayed:q", run)]:
                self.waiting[run] = self.delayed.pop(run)
            is_counted = message.losses > 0 or message.delivery_tag in self.alone
            if message.stalls + is_counted > self.driver.max_stalls:
                self.dead.add(message.run_id)
            else:
                self.waiting[message.run_id] = group

    @rule(data=st.data())
    def late_answer(self, data: st.DataObject) -> None:
        """A holder that vanished answers."""
        if self.late:
            message = data.draw(st.sampled_from(self.late))
            answer = data.draw(st.sampled_from([self.driver.done, self.driver.again, self.driver.bury]))
            assert not answer(message)
            assert self.driver.renew(message) == [0]

    @rule()
    def renew(self) -> None:
        """All holders renew."""
        assert self.driver.renew(*(message for message, _ in self.held)) == []

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """An operator removes one."""
        runs = [*self.waiting, *self.delayed]
        if runs:
            run = data.draw(st.sampled_from(runs))
            self.driver.control.remove(run)
            self.waiting.pop(run, None)
            self.delayed.pop(run, None)

    @initialize(limits=st.sets(st.sampled_from(LIMITS)), number=st.integers(1, 2))
    def begin_with_limits(self, limits: set[str], number: int) -> None:
        """Most errors need a limit to show."""
        for limit in sorted(limits):
            self._set(limit, number)

    @rule(what=st.sampled_from(("pause", *LIMITS)), number=st.one_of(st.none(), st.integers(1, 3)))
    def operate(self, what: str, number: int | None) -> None:
        """An operator pauses, resumes, sets a limit or lifts it (None); a rate is one start in an hour."""
        self._set(what, number)

    def _set(self, what: str, number: int | None) -> None:
        control, is_on = self.driver.control, number is not None
        if what == "pause":
            (control.pause if is_on else control.resume)("q")
            self.is_paused = is_on
        elif what == "at once":
            self.limit = number
            control.set_concurrency("q", number)
        elif what == "at once for each key":
            self.key_limit = number
            control.set_key_concurrency("q", number)
        elif what == "rate":
            self.has_rate = is_on
            control.set_rate_limit("q", 1 if is_on else None, per=HOUR)
        else:
            self.has_key_rate = is_on
            control.set_key_rate_limit("q", 1 if is_on else None, per=HOUR)

    @rule()
    def an_hour_passes(self) -> None:
        """All limits of rate are fresh, and the groups that waited for that may run."""
        for name in self.client.scan_iter(f"{PREFIX}rate:q*"):
            self.client.delete(name)
        parked: Any = self.client.zrange(f"{PREFIX}parked:q", 0, -1, withscores=True)
        for group, until in parked:
            if until != math.inf:
                self.client.zadd(f"{PREFIX}parked:q", {group: 1})
        self.is_spent = False
        self.spent.clear()

    @invariant()
    def every_message_is_in_one_place_and_the_counts_are_true(self) -> None:
        """No message is lost or doubled."""
        places = self.places()
        counts = self.driver.control.counts("q")
        assert sorted(places["waiting"] + places["grouped"]) == sorted(self.waiting)
        assert sorted(places["delayed"]) == sorted(self.delayed)
        assert sorted(places["active"]) == sorted(message.run_id for message, _ in self.held)
        assert set(places["dead"]) == self.dead
        assert counts.waiting == len(self.waiting)
        assert (counts.delayed, counts.active, counts.dead) == (len(self.delayed), len(self.held), len(self.dead))

    @invariant()
    def every_group_has_its_turn_or_waits_for_what_will_come(self) -> None:
        """No group is forgotten, and what runs of it is counted, no more."""
        with self.client.pipeline() as pipeline:
            for kind in ("turns", "parked"):
                pipeline.zrange(f"{PREFIX}{kind}:q", 0, -1, withscores=True)
            for group in GROUP_KEYS:
                pipeline.smembers(f"{PREFIX}running:q:{group}")
            turns, parked, *running = pipeline.execute()
        assert sorted(name.decode() for name, _ in turns + parked) == sorted(
            {group for group in self.waiting.values() if group is not None}
        )
        for group, tags in zip(GROUP_KEYS, running, strict=True):
            held = {message.run_id for message, its_group in self.held if its_group == group}
            assert {tag.decode() for tag in tags} == held
            assert held or dict(parked).get(group.encode()) != math.inf  # else no end of a lease would wake it

    @invariant()
    def no_message_is_without_a_place(self) -> None:
        """No message is forgotten."""
        known = {*self.waiting, *self.delayed, *self.dead, *(message.run_id for message, _ in self.held)}
        tags = {
            key.removeprefix(f"{PREFIX}message:")
            for key in self.driver.all_keys()
            if key.startswith(f"{PREFIX}message:")
        }
        assert {tag for tag in tags if not tag.startswith("bury-")} == known


@contextmanager
def machine_on(server: Server) -> Iterator[type[Broker]]:
    """The state machine, bound to a server."""
    with redis.Redis(port=server.port) as client:
        yield type("BoundBroker", (Broker,), {"client": client})


@pytest.mark.timeout(300)
def test_every_message_is_always_in_exactly_one_place(broker_server: Server) -> None:
    with machine_on(broker_server) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
