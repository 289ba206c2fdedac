"""A consumer without Celery: puts, takes and ends messages through the scripts, for tests of their rules."""

import json
from typing import Any

import redis

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.protocol.envelope import TakenMessage, put_fields, read_taken
from taskyard.broker.protocol.outcomes import (
    BrokerLease,
    Completed,
    DeadLettered,
    Outcome,
    Rescheduled,
    Returned,
    Stalled,
)
from taskyard.broker.scripts.runner import Keyspace, ScriptCall, run_script

PREFIX = "taskyard:"


class ScriptDriver:
    """One client on one queue; leases are long unless a test asks for short ones."""

    def __init__(self, client: redis.Redis, queue: str = "q", lease_ms: int = 60_000, max_stalls: int = 3) -> None:
        self.client = client
        self.queue = queue
        self.lease_ms = lease_ms
        self.max_stalls = max_stalls
        self.space = Keyspace(PREFIX, writes_events=True)
        self.control = QueueControl(client)
        self._count = 0

    def put(self, run_id: str | None = None, *, priority: int = 5, eta: str | None = None, **facts: Any) -> str:
        """Put one message; returns '' or the id of the run that holds its dedup key."""
        return self.put_envelope(self.envelope(run_id or self.next_id(), priority=priority, eta=eta, **facts))

    def next_id(self) -> str:
        """A fresh run id, in order."""
        self._count += 1
        return f"r{self._count:05d}"

    @staticmethod
    def envelope(run_id: str, *, priority: int = 5, eta: str | None = None, **facts: Any) -> dict[str, Any]:
        """What kombu would hand to the channel."""
        return {
            "body": "[[], {}, {}]",
            "headers": {"id": run_id, "task": "t", "eta": eta, "retries": 0, "taskyard": facts},
            "properties": {"delivery_tag": f"nonce-{run_id}", "priority": priority, "delivery_info": {}},
        }

    def payload_of(self, run_id: str) -> bytes:
        """The bytes of the message that `put(run_id)` stores."""
        return str(put_fields(self.queue, self.envelope(run_id))[3]).encode()

    def put_envelope(self, message: dict[str, Any]) -> str:
        """Put a message as it is."""
        answer: list[bytes] = run_script(self.client, self.space, "put", *put_fields(self.queue, message))
        return answer[0].decode()

    def take(
        self, want: int = 1, *queues: str, lease_ms: int | None = None, in_hand: str = "", holds_suspects: bool = False
    ) -> list[TakenMessage]:
        """Take up to `want` messages, as a worker that has nothing else unless `in_hand` says so."""
        pairs = [argument for queue in queues or (self.queue,) for argument in (queue, "0")]
        worker = (lease_ms or self.lease_ms, self.max_stalls, want, "driver", in_hand, int(holds_suspects))
        answer = run_script(self.client, self.space, "take", *worker, *pairs)
        self.next_look = answer[0]
        return [read_taken(one) for one in answer[1:]]

    def ids(self, want: int = 100) -> list[str]:
        """Take and name the runs."""
        return [taken.run_id for taken in self.take(want)]

    def end(self, taken: TakenMessage, ending: Outcome) -> bool:
        """End one; False when its lease was gone."""
        lease = taken.to_lease()
        assert isinstance(lease, BrokerLease)
        if isinstance(ending, Completed):
            return not run_script(self.client, self.space, "ack", *ending.arguments(lease, ""))
        call: ScriptCall = ending.call(lease, self.max_stalls)
        return bool(run_script(self.client, self.space, call.name, *call.arguments))

    def done(self, taken: TakenMessage) -> bool:
        """Acknowledge."""
        return self.end(taken, Completed("succeeded"))

    def again(self, taken: TakenMessage, delay_ms: int = 0, *, uses_attempt: bool = True) -> bool:
        """Bring it back later."""
        return self.end(taken, Rescheduled(delay_ms, "retrying", uses_attempt))

    def lose(self, taken: TakenMessage) -> bool:
        """Its process died."""
        return self.end(taken, Stalled('{"error":"WorkerLostError"}'))

    def give_back(self, taken: TakenMessage) -> bool:
        """Return it to the head."""
        return self.end(taken, Returned())

    def bury(self, taken: TakenMessage) -> bool:
        """To the dead letters."""
        return self.end(taken, DeadLettered("failed", '{"error":"ValueError","message":"no"}'))

    def renew(self, *all_taken: TakenMessage, lease_ms: int = 60_000) -> list[int]:
        """Renew; returns the indexes of lost ones."""
        arguments = [argument for taken in all_taken for argument in (taken.queue, taken.tag, taken.lease)]
        answer: list[int] = run_script(self.client, self.space, "renew", lease_ms, "driver", 1, self.queue, *arguments)
        return answer

    def expire(self, taken: TakenMessage) -> None:
        """Let its lease end now."""
        self.client.zadd(f"{PREFIX}active:{taken.queue}", {taken.tag: 1})

    def handed_out_at(self, taken: TakenMessage) -> float:
        """When the server handed it out, in seconds of its clock: its lease says so until it is renewed."""
        ends: Any = self.client.zscore(f"{PREFIX}active:{taken.queue}", taken.tag)
        return (float(ends) - self.lease_ms) / 1000

    def make_due(self, run_id: str) -> None:
        """Let its delay end now."""
        self.client.zadd(f"{PREFIX}delayed:{self.queue}", {run_id: 1}, xx=True)

    def all_keys(self) -> set[str]:
        """All keys but the events."""
        names: Any = self.client.keys(f"{PREFIX}*")
        return {name.decode() for name in names} - {f"{PREFIX}events", f"{PREFIX}consumers:q"}

    def events(self) -> list[tuple[str, str]]:
        """Run and event, in order."""
        entries: Any = self.client.xrange(f"{PREFIX}events")
        return [(fields[b"id"].decode(), fields[b"e"].decode()) for _, fields in entries]

    def details(self, run_id: str) -> list[dict[str, Any]]:
        """The details of a run's events."""
        entries: Any = self.client.xrange(f"{PREFIX}events")
        return [json.loads(fields[b"d"] or b"{}") for _, fields in entries if fields[b"id"].decode() == run_id]
