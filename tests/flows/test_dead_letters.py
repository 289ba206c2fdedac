"""Dead letters and cancelled runs of steps: they name their flow, end their step, and a redrive lets the flow go on."""

import json
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import update
from sqlmodel import col

from taskyard.flows.definition.flow import Flow
from taskyard.flows.models import StepRow
from tests.commands import command_of
from tests.flows.app import Act, act
from tests.flows.flow_stage import LIMIT, PREFIX, FlowStage
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def command(group: str, *words: str) -> Any:
    """What a command prints as JSON; None: it failed."""
    result = CliRunner().invoke(command_of(group), [*words, "--json"])
    return json.loads(result.stdout) if result.exit_code == 0 else None


def two_steps(stage: FlowStage, **first: Any) -> UUID:
    """Start a flow of two steps, the first of which does this."""
    flow = Flow("test.letters")
    before = flow.step("first", act, Act(name="first", notes=str(stage.notes), **first))
    flow.step("second", act, Act(name="second", notes=str(stage.notes)), after=[before])
    return flow.start().id


def test_a_dead_letter_names_its_step_and_once_redriven_the_flow_goes_on(stage: FlowStage) -> None:
    mended = stage.folder / "mended"
    flow_id = two_steps(stage, is_permanent=True, until=str(mended))
    stage.worker()
    assert stage.wait_ended(flow_id) == "failed"
    stage.wait_letters(1)
    (letter,) = command("dlq", "ls")["items"]
    expected = {"flow": str(flow_id), "step": "first"}
    assert letter.items() >= expected.items()
    assert command("dlq", "show", letter["id"]).items() >= expected.items()

    mended.touch()
    assert command("dlq", "redrive", letter["id"], "--yes", "--reason", "mended") is not None

    assert stage.wait_ended(flow_id, state="succeeded") == "succeeded"
    assert stage.done() == ["first", "first", "second"]
    runs = (letter["run_id"], stage.steps(flow_id)["first"].run_id)
    assert runs[0] != runs[1]
    for run_id in runs:
        shown = wait_for(lambda run_id=run_id: command("jobs", "show", str(run_id)), LIMIT, "the run is recorded")  # type: ignore[misc]  # its type is that of the default
        assert shown.items() >= expected.items()


def test_a_resumed_step_leaves_no_open_dead_letter(stage: FlowStage) -> None:
    mended = stage.folder / "mended"
    flow_id = two_steps(stage, is_permanent=True, until=str(mended))
    stage.worker()
    stage.wait_letters(1)
    assert stage.wait_ended(flow_id) == "failed"

    mended.touch()
    assert command("flows", "resume", str(flow_id), "--reason", "mended") is not None

    assert stage.wait_ended(flow_id, state="succeeded") == "succeeded"
    (letter,) = stage.letters()
    assert (letter.state, letter.resolution) == ("discarded", "flows resume: mended")


def test_a_step_whose_run_is_cancelled_before_it_began_has_failed_at_once(stage: FlowStage) -> None:
    flow_id = two_steps(stage)
    run_id = str(stage.steps(flow_id)["first"].run_id)

    assert command("jobs", "cancel", run_id, "--yes", "--reason", "wrong zone") is not None

    assert stage.states(flow_id) == {"first": "failed", "second": "cancelled"}
    assert stage.flow(flow_id).state == "failed"
    assert str(stage.steps(flow_id)["first"].error).endswith(": wrong zone")
    stage.worker()
    wait_for(lambda: not stage.waiting(), LIMIT, "the cancelled message is gone")
    assert stage.done() == []


def test_a_step_whose_run_is_cancelled_while_it_runs_has_failed_when_it_is_swept(stage: FlowStage) -> None:
    flow_id = two_steps(stage, hold=str(stage.folder / "never"))
    stage.worker(pool="prefork", slots=1)
    stage.wait_step(flow_id, "first", "running")
    run_id = str(stage.steps(flow_id)["first"].run_id)

    assert command("jobs", "cancel", run_id, "--yes", "--reason", "it hangs") is not None

    def swept() -> bool:
        stage.make_due()
        stage.sweep()
        return stage.flow(flow_id).state == "failed"

    wait_for(swept, LIMIT, "the sweeper learns it from the records", lambda: stage.tell(flow_id))
    assert "cancelled" in str(stage.steps(flow_id)["first"].error)


def test_a_step_that_kills_its_workers_ends_its_flow(stage: FlowStage) -> None:
    flow_id = two_steps(stage, die_first=1000)
    stage.worker(pool="prefork", slots=1)

    assert stage.wait_ended(flow_id) == "failed"
    assert stage.states(flow_id) == {"first": "failed", "second": "cancelled"}
    (letter,) = stage.letters()
    assert letter.reason in str(stage.flow(flow_id).reason)


def test_a_step_whose_message_cannot_be_read_ends_its_flow(stage: FlowStage) -> None:
    flow_id = two_steps(stage)
    with Redis.from_url(stage.valkey.url) as client:
        (key,) = client.scan_iter(f"{PREFIX}*message:*")
        envelope = json.loads(client.hget(key, "m") or b"")
        client.hset(key, "m", json.dumps({**envelope, "body": "[["}))
    stage.worker()

    assert stage.wait_ended(flow_id) == "failed"
    assert "malformed" in str(stage.steps(flow_id)["first"].error)


def test_steps_of_older_code_end_in_clear_errors_and_hinder_nobody(stage: FlowStage) -> None:
    """Rows that another release wrote: a task that is gone, a payload that fits no more, options of another time."""
    gone, misfit, fine, bare = (two_steps(stage) for _ in range(4))
    with Redis.from_url(stage.valkey.url) as client:
        client.flushall()
    old: dict[UUID, dict[str, Any]] = {
        gone: {"task": "flowtest.removed"},
        misfit: {"payload": {"name": "first", "colour": "red"}},
        fine: {"payload": {"name": "first"}, "options": {"queue": "celery", "of_old": 1, "weight": {"a": [2]}}},
        bare: {"payload": {"name": "first"}, "options": None},
    }
    with stage.session() as session, session.begin():
        for flow_id, values in old.items():
            session.execute(
                update(StepRow).where(col(StepRow.flow_id) == flow_id, col(StepRow.seq) == 0).values(values)
            )
    stage.make_due()
    stage.sweep()
    told = CliRunner().invoke(command_of("doctor"), ["--json"]).output
    assert "flowtest.removed" in told
    stage.worker()

    ends = [stage.wait_ended(flow_id) for flow_id in (gone, misfit, fine, bare)]
    assert ends == ["failed", "failed", "succeeded", "succeeded"]
    shown = CliRunner().invoke(command_of("flows"), ["show", str(gone)]).stdout
    assert "flowtest.removed" in shown
    assert "unknown_task" in str(stage.steps(gone)["first"].error)
    assert "colour: Extra inputs are not permitted" in str(stage.steps(misfit)["first"].error)
