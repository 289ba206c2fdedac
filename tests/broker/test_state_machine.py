"""Any order of operations keeps every message in exactly one place, and the counts true."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker.messages import Taken
from tests.broker.driver import PREFIX, Driver
from tests.servers import Server

GROUPS = (None, None, "g", "h")


class Broker(RuleBasedStateMachine):
    """The model: which runs exist, where each should be, and who holds which lease."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.driver = Driver(self.client, max_stalls=2)
        self.waiting: dict[str, str | None] = {}  # run -> group
        self.delayed: dict[str, str | None] = {}
        self.held: list[tuple[Taken, str | None]] = []
        self.late: list[Taken] = []  # hand-outs whose lease was lost
        self.dead: set[str] = set()
        self.limit: int | None = None
        self.is_paused = False

    @rule(priority=st.integers(0, 9), group=st.sampled_from(GROUPS), lifo=st.booleans())
    def put(self, priority: int, group: str | None, lifo: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Put one."""
        run = self.driver.next_id()
        self.driver.put(run, priority=priority, group_key=group, lifo=lifo)
        self.waiting[run] = group

    @rule(group=st.sampled_from(GROUPS))
    def put_delayed(self, group: str | None) -> None:
        """Put one that is due in a thousand years."""
        run = self.driver.next_id()
        self.driver.put(run, eta="2999-01-01T00:00:00+00:00", group_key=group)
        self.delayed[run] = group

    @rule()
    def time_passes(self) -> None:
        """All delays end."""
        for run in self.delayed:
            self.driver.make_due(run)

    @rule(want=st.integers(1, 5))
    def take(self, want: int) -> None:
        """Take some, and expect just so many."""
        due = [run for run in self.delayed if (self.client.zscore(f"{PREFIX}delayed:q", run) or 0) <= 1]
        taken = self.driver.take(want)
        for run in due:
            self.waiting[run] = self.delayed.pop(run)
        room = max(0, self.limit - len(self.held)) if self.limit is not None else want
        expected = 0 if self.is_paused else min(want, room, len(self.waiting))
        assert len(taken) == expected
        for message in taken:
            self.held.append((message, self.waiting.pop(message.run_id)))

    def members(self, kind: str) -> list[str]:
        """The tags in one of the queue's sorted sets."""
        tags: Any = self.client.zrange(f"{PREFIX}{kind}:q", 0, -1)
        return [tag.decode() for tag in tags]

    def _pick(self, data: st.DataObject) -> tuple[Taken, str | None] | None:
        return self.held.pop(data.draw(st.integers(0, len(self.held) - 1))) if self.held else None

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        """One is done."""
        if picked := self._pick(data):
            assert self.driver.done(picked[0])

    @rule(data=st.data(), delay_ms=st.sampled_from([0, 3_600_000]))
    def requeue(self, data: st.DataObject, delay_ms: int) -> None:
        """One comes back now or later."""
        if picked := self._pick(data):
            message, group = picked
            assert self.driver.again(message, delay_ms)
            (self.delayed if delay_ms else self.waiting)[message.run_id] = group

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """One is returned."""
        if picked := self._pick(data):
            assert self.driver.give_back(picked[0])
            self.waiting[picked[0].run_id] = picked[1]

    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        """One is dead."""
        if picked := self._pick(data):
            assert self.driver.bury(picked[0])
            self.dead.add(picked[0].run_id)

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
            if message.stalls + 1 > self.driver.max_stalls:
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

    @rule(is_paused=st.booleans())
    def pause(self, is_paused: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """An operator pauses or resumes."""
        (self.driver.control.pause if is_paused else self.driver.control.resume)("q")
        self.is_paused = is_paused

    @rule(limit=st.sampled_from([None, 1, 3]))
    def limit_concurrency(self, limit: int | None) -> None:
        """An operator limits."""
        self.driver.control.set_concurrency("q", limit)
        self.limit = limit

    @invariant()
    def every_message_is_in_one_place_and_the_counts_are_true(self) -> None:
        """No message is lost or doubled."""
        places = {kind: self.members(kind) for kind in ("waiting", "grouped", "delayed", "active", "dead")}
        counts = self.driver.control.counts("q")
        assert sorted(places["waiting"] + places["grouped"]) == sorted(self.waiting)
        assert sorted(places["delayed"]) == sorted(self.delayed)
        assert sorted(places["active"]) == sorted(message.run_id for message, _ in self.held)
        assert set(places["dead"]) == self.dead
        assert counts.waiting == len(self.waiting)
        assert (counts.delayed, counts.active, counts.dead) == (len(self.delayed), len(self.held), len(self.dead))

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
                max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
