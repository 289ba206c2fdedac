"""Many flows while workers are killed, the broker is emptied and the database is away: each step succeeds once."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlmodel import col, select

from taskyard.flows.definition.flow import Flow
from taskyard.flows.models import FlowRow, StepRow
from tests.databases import Database
from tests.flows.app import Act, Gather, act, gather
from tests.flows.flow_stage import LIMIT, FlowStage, environment
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import stays_true, wait_for

LONG = (pytest.mark.chaos, pytest.mark.timeout(1800))
SWEEP_PAUSE = 1  # seconds
TRANSITIONS = """
CREATE TABLE test_transitions (flow_id uuid, seq integer, generation integer, state text);
CREATE FUNCTION test_note() RETURNS trigger AS $$
BEGIN
    INSERT INTO test_transitions VALUES (NEW.flow_id, NEW.seq, NEW.generation, NEW.state);
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER test_note AFTER UPDATE ON taskyard_flow_steps FOR EACH ROW
WHEN (OLD.state <> NEW.state AND NEW.state IN ('queued', 'succeeded', 'failed', 'cancelled', 'compensated'))
EXECUTE FUNCTION test_note();
"""


@pytest.fixture
def cable(database: Database) -> Iterator[Proxy]:
    """What connects the workers and the database."""
    with Proxy(make_url(database.url).port or 5432) as made:
        yield made


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("pool", "wave", "away"),
    [
        ("threads", 5, 3),
        pytest.param("threads", 67, 10, marks=LONG),
        pytest.param("prefork", 67, 10, marks=LONG),
    ],
)
def test_kills_flushes_and_an_absent_database_leave_every_step_succeeded_once(  # noqa: PLR0913, PLR0917 - fixtures and cases
    stage: FlowStage, database: Database, cable: Proxy, valkey: Server, pool: str, wave: int, away: int, tmp_path: Path
) -> None:
    """Three waves of flows: in each, workers are killed, and the broker is emptied or the database away for seconds."""
    with database.engine.begin() as connection:
        connection.execute(text(TRANSITIONS))
    url = make_url(database.url).set(port=cable.port).render_as_string(hide_password=False)
    stage.env |= environment(valkey, Database("postgresql", url, database.engine), tmp_path)
    trouble, runs = _Trouble(stage, pool, max(wave // 4, 2)), list[UUID]()

    for disaster in ("flush", "absence", "flush"):
        runs += [_start(len(runs) + number) for number in range(wave)]
        trouble.until(len(runs) - wave + max(wave // 4, 1))
        if disaster == "flush":
            valkey.client().flushall()
        else:
            cable.cut()
            stays_true(lambda: True, away, "the database is away")
            cable.heal()
        trouble.kill()
    trouble.until(len(runs))

    with stage.session() as session:
        states = session.exec(select(FlowRow.state).where(col(FlowRow.id).in_(runs))).all()
        noted = session.execute(text("SELECT flow_id, seq, generation, state FROM test_transitions")).all()
        steps = session.exec(select(StepRow.flow_id, StepRow.seq).where(StepRow.role == "step")).all()
    assert set(states) == {"succeeded"}
    ends = [tuple(row)[:3] for row in noted if row.state == "succeeded"]
    assert sorted(ends) == sorted((flow_id, seq, 1) for flow_id, seq in steps)
    assert {row.state for row in noted} == {"queued", "succeeded"}, "nothing failed, was cancelled or undone"
    assert {row.generation for row in noted} == {1}, "nothing was released twice"


class _Trouble:
    """Two workers of which one is killed now and then, and a sweeper that looks all the time."""

    def __init__(self, stage: FlowStage, pool: str, pause: int) -> None:
        """`pause` is after how many flows a worker is killed."""
        self.kills = 0
        self._stage, self._pool, self._pause = stage, pool, pause
        self._dice = random.Random(20)  # noqa: S311 - no secret
        self._workers = [stage.worker(f"w{number}", pool) for number in range(2)]
        self._next_kill, self._next_sweep = pause, 0.0

    def until(self, ended: int) -> None:
        """Go on until so many flows have ended."""
        wait_for(lambda: self._look() >= ended, 10 * LIMIT, f"{ended} flows have ended", self._tell)

    def kill(self) -> None:
        """Kill one of the workers, and start another one."""
        place = self._dice.randrange(2)
        self._workers[place].kill()
        self.kills += 1
        self._workers[place] = self._stage.worker(f"again{self.kills}", self._pool)

    def _look(self) -> int:
        ended = self._ended()
        if ended >= self._next_kill:
            self.kill()
            self._next_kill = ended + self._pause
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_PAUSE
            self._stage.make_due()
            self._stage.sweep()
        return ended

    def _ended(self) -> int:
        with self._stage.session() as session:
            return len(session.exec(select(FlowRow.id).where(col(FlowRow.finished_at).is_not(None))).all())

    def _tell(self) -> str:
        with self._stage.session() as session:
            rows = session.exec(select(StepRow).where(col(StepRow.state).in_(("queued", "running", "waiting")))).all()
        return str([(row.name, row.state, row.error) for row in rows][:20])


def _start(number: int) -> UUID:
    """A flow of six steps, as a diamond with a tail; each has an undo that must not run."""
    flow = Flow("test.chaos", key=str(number))

    first = flow.step("first", act, Act(name="first", value=number), undo=(act, Act(name="undo")))
    left, right = (flow.step(name, act, Act(name=name), after=[first]) for name in ("left", "right"))
    join = flow.step("join", gather, Gather(single="first"), after=[left, right], undo=(act, Act(name="undo")))
    fourth = flow.step("fourth", act, Act(name="fourth"), after=[join])
    flow.step("last", act, Act(name="last"), after=[fourth])
    flow.on_failure("tell", act, Act(name="tell"))
    return flow.start().id
