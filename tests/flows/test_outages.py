"""What goes away under flows: the broker's data, the broker, the database, and an operator's patience."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlmodel import select

from taskyard.database.columns import utc_now
from taskyard.flows.definition.flow import Flow
from taskyard.flows.definition.polling import Poll
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.retention import prune_flows
from tests.flows.app import Act, Gather, act, gather
from tests.flows.flow_stage import LIMIT, FlowStage

MANY = 20  # flows


def test_a_flushed_broker_loses_no_step(stage: FlowStage) -> None:
    """Whether it was queued, polled, or being run when all messages went."""
    hold = stage.folder / "hold"
    flow = Flow("test.flush")
    poll = Poll(every=timedelta(hours=1), within=timedelta(hours=2))
    parents = [
        flow.step("running", act, Act(name="running", notes=str(stage.notes), hold=str(hold))),
        flow.step("polled", act, Act(name="polled", notes=str(stage.notes), pend=1), poll=poll),
    ]
    flow.step("last", act, Act(name="last", notes=str(stage.notes)), after=parents)
    run = flow.start()
    stage.worker(slots=3)
    stage.wait_step(run.id, "polled", "waiting")
    stage.wait_step(run.id, "running", "running")

    stage.valkey.client().flushall()
    hold.touch()
    stage.make_due()
    swept = stage.sweep()

    assert swept.sent_again >= 1
    assert stage.wait_ended(run.id) == "succeeded"
    assert set(stage.states(run.id).values()) == {"succeeded"}


def test_a_flow_that_is_started_while_the_broker_is_away_begins_when_it_is_back(stage: FlowStage) -> None:
    flow = Flow("test.away")
    flow.step("a", act, Act(name="a"))
    stage.valkey.kill()
    run = flow.start()
    stage.valkey.start()
    assert stage.states(run.id)["a"] == "queued"
    assert stage.waiting() == 0

    stage.make_due()
    stage.sweep()

    assert stage.waiting() == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_random_kills_leave_every_flow_succeeded_and_undo_nothing(stage: FlowStage, pool: str) -> None:
    """The handlers of every seventh step kill their worker at their first execution; another worker goes on."""
    notes = str(stage.notes)
    runs = []
    for number in range(MANY):
        flow = Flow("test.kills")
        before = [flow.step("s0", act, Act(name=f"{number}.s0", value=number), undo=(act, Act(name="no", notes=notes)))]
        for place in range(1, 5):
            dies = number % 7 == 0 and place == 1 + number // 7
            payload = Act(name=f"{number}.s{place}", notes=notes if dies else "", die_first=int(dies))
            before = [flow.step(f"s{place}", act, payload, after=before)]
        flow.step("end", gather, Gather(single="s0"), after=before)
        runs.append(flow.start())
    stage.restarting(pool, lambda: all(stage.flow(run.id).finished_at for run in runs))

    assert {stage.flow(run.id).state for run in runs} == {"succeeded"}
    assert "no" not in stage.done()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_sweeper_waits_for_no_step_that_a_worker_holds(stage: FlowStage) -> None:
    """It looks at many steps at once, and each could wait for the other."""
    flow = Flow("test.held")
    for name in ("a", "b"):
        flow.step(name, act, Act(name=name))
    run = flow.start()
    stage.make_due()
    with ThreadPoolExecutor(1) as pool, stage.session() as session, session.begin():
        session.exec(select(StepRow).where(StepRow.name == "b").with_for_update()).one()

        pool.submit(stage.sweep).result(LIMIT)

        due = {name: (row.check_at or utc_now()) <= utc_now() for name, row in stage.steps(run.id).items()}
        assert due == {"a": False, "b": True}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_old_flows_are_deleted_with_their_steps(stage: FlowStage) -> None:
    flow = Flow("test.old")
    flow.step("a", act, Act(name="a"))
    old, new = flow.start().id, flow.start().id
    for flow_id in (old, new):
        stage.run(flow_id, "a")
    with stage.session() as session, session.begin():
        session.execute(update(FlowRow).where(FlowRow.id == old).values(finished_at=utc_now() - timedelta(days=40)))  # type: ignore[arg-type]  # SQLModel's columns

    assert prune_flows(stage.session, utc_now() - timedelta(days=30)) == 1
    assert stage.steps(old) == {}
    assert stage.states(new) == {"a": "succeeded"}
