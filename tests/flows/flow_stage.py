"""A broker, a database and workers for flows, and what a test wants to know of them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis
from sqlalchemy import update
from sqlmodel import Session, col, select

from taskyard.broker.admin.message_lookup import find_live_runs
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.database.columns import utc_now
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.release.handover import hand_over
from taskyard.flows.rules.outcomes import Outcome
from taskyard.flows.running.sweeping import FlowsSwept, Sweeper
from taskyard.flows.states import ENDED_FLOWS
from taskyard.flows.step_ref import StepRef
from taskyard.flows.storage.store import FlowStore, Start
from taskyard.history.models import DeadLetter
from taskyard.tasks.dead_letters.redrive import redrive
from tests.databases import Database
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

LIMIT = 60  # seconds; the machine may be busy
PREFIX = "taskyard:"


class FlowStage:
    """One broker, one database, and the environment that points to them."""

    def __init__(self, valkey: Server, database: Database, folder: Path, env: Mapping[str, str]) -> None:
        self.valkey, self.database, self.folder = valkey, database, folder
        self.env = dict(env)
        self.notes = folder / "notes"
        self._workers: list[Worker] = []

    def worker(
        self, name: str = "worker", pool: str = "threads", slots: int = 4, more: Sequence[str] = (), **env: str
    ) -> Worker:
        """Start a worker with these arguments, too; it is killed at the end of the test."""
        if pool == "asyncio":
            pool, env["CELERY_CUSTOM_WORKER_POOL"] = "custom", "taskyard.pools.asyncio_pool:TaskPool"
        arguments = ("-Q", "celery,dead-letter,maintenance", "-P", pool, "-c", str(slots), *MINIMAL, *more)
        worker = Worker("tests.flows.app", self.folder, name=name, arguments=arguments, env={**self.env, **env})
        self._workers.append(worker)
        return worker.start()

    def restarting(self, pool: str, is_done: Callable[[], bool]) -> None:
        """Keep two workers running, however often they die, until it is done."""

        def look() -> bool:
            alive = [worker for worker in self._workers if worker.is_running]
            if len(alive) < 2:
                self.worker(f"again{len(self._workers)}", pool, 2)
            return is_done()

        wait_for(look, 2 * LIMIT, "it is done", lambda: "\n".join(worker.tail() for worker in self._workers))

    def session(self) -> Session:
        """A session on the database."""
        return self.database.session()

    def flow(self, flow_id: UUID) -> FlowRow:
        """The flow's row."""
        with self.session() as session:
            return session.exec(select(FlowRow).where(FlowRow.id == flow_id)).one()

    def steps(self, flow_id: UUID) -> dict[str, StepRow]:
        """The flow's steps by name."""
        with self.session() as session:
            rows = session.exec(select(StepRow).where(StepRow.flow_id == flow_id).order_by(col(StepRow.seq))).all()
        return {row.name: row for row in rows}

    def states(self, flow_id: UUID) -> dict[str, str]:
        """The states of the flow's steps by name."""
        return {name: row.state for name, row in self.steps(flow_id).items()}

    def wait_ended(self, flow_id: UUID, limit: float = LIMIT, *, state: str = "") -> str:
        """Wait until the flow has ended, or has this state; return it."""
        wanted = {state} if state else set(ENDED_FLOWS)
        wait_for(lambda: self.flow(flow_id).state in wanted, limit, "the flow has ended", lambda: self.tell(flow_id))
        return self.flow(flow_id).state

    def wait_step(self, flow_id: UUID, name: str, state: str) -> None:
        """Wait until a step is in a state."""
        wait_for(
            lambda: self.steps(flow_id)[name].state == state, LIMIT, f"{name} is {state}", lambda: self.tell(flow_id)
        )

    def tell(self, flow_id: UUID) -> str:
        """The flow and its steps, for messages of failed tests."""
        flow = self.flow(flow_id)
        steps = [f"{row.name}={row.state} {row.error or ''}" for row in self.steps(flow_id).values()]
        logs = "\n".join(worker.tail() for worker in self._workers)
        return f"{flow.state} {flow.reason}: {steps}\n{logs}"

    def done(self) -> list[str]:
        """What steps noted, in order."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def make_due(self) -> None:
        """Let the sweeper look at everything now."""
        query = select(StepRow).where(col(StepRow.check_at).is_not(None))
        with self.session() as session, session.begin():
            for step in session.exec(query.with_for_update(skip_locked=True)):
                step.check_at = utc_now()

    def make_late(self, flow_id: UUID) -> None:
        """Let the deadline of a flow be over."""
        with self.session() as session, session.begin():
            past = utc_now() - timedelta(seconds=1)
            session.execute(update(FlowRow).where(col(FlowRow.id) == flow_id).values(check_at=past))

    def check_deadline(self, flow_id: UUID, seq: int | None) -> timedelta:
        """Look at a deadline, as the delayed task does."""
        return Sweeper(self.session, lambda _: ()).check_deadline(flow_id, seq)

    def sweep(self) -> FlowsSwept:
        """Look for what is due."""
        with Redis.from_url(self.valkey.url) as client:
            return Sweeper(self.session, lambda runs: find_live_runs(client, PREFIX, runs)).sweep()

    def waiting(self) -> int:
        """How many messages wait for a worker."""
        with Redis.from_url(self.valkey.url) as client:
            return QueueControl(client).counts("celery").waiting

    def begin(self, flow_id: UUID, name: str) -> Start:
        """Begin a step, as a worker that takes its message does."""
        step = self.steps(flow_id)[name]
        return self.store.begin(self.ref(flow_id, name), step.run_id or "", 1)

    def record(self, flow_id: UUID, name: str, kind: Any, **more: Any) -> None:
        """Record how a step ended, as the worker that ran it does."""
        hand_over(self.store.record(Outcome(self.ref(flow_id, name), kind, **more)).orders)

    def run(self, flow_id: UUID, name: str, kind: Any = "succeeded", **more: Any) -> None:
        """Begin a step and end it."""
        assert self.begin(flow_id, name).verdict == "run", self.tell(flow_id)
        self.record(flow_id, name, kind, **more)

    def ref(self, flow_id: UUID, name: str) -> StepRef:
        """The newest release of a step."""
        step = self.steps(flow_id)[name]
        return StepRef(flow_id, step.seq, step.generation)

    @property
    def store(self) -> FlowStore:
        """The store of a worker."""
        return FlowStore(self.session)

    def letters(self) -> list[DeadLetter]:
        """All dead letters."""
        with self.session() as session:
            return list(session.exec(select(DeadLetter)).all())

    def wait_letters(self, count: int) -> None:
        """Wait for so many dead letters."""
        wait_for(lambda: len(self.letters()) >= count, LIMIT, f"{count} dead letters")

    def redrive(self, letter_id: UUID) -> None:
        """Run a dead letter again, as an operator does."""
        with self.session() as session:
            redrive(session, letter_id, by="tester", reason="mended")

    def stop(self) -> None:
        """Kill what runs."""
        for worker in self._workers:
            if worker.is_running:
                worker.kill()


def environment(valkey: Server, database: Database, folder: Path) -> dict[str, str]:
    """The variables of the platform."""
    return {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": database.url,
        "TASKYARD_DATA": str(folder),
        "LOG_FORMAT": "json",
        "WORKER_QUEUE_STALLED_INTERVAL": "1000",
        "WORKER_SHUTDOWN_SECONDS": "1",
    }


def facts(row: Any, *names: str) -> tuple[Any, ...]:
    """Some columns of a row."""
    return tuple(getattr(row, name) for name in names)
