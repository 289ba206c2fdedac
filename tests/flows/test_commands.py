"""`flows` as an operator types it: ids by their beginning, one clear line, and what will run is told."""

from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from taskyard.flows.definition.flow import Flow
from tests.commands import command_of
from tests.flows.app import Act, act
from tests.flows.flow_stage import FlowStage

ONE = Act(name="one")
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def flows(*words: str) -> Result:
    return CliRunner().invoke(command_of("flows"), words)


def start() -> UUID:
    """A flow that begins with an approval."""
    flow = Flow("test.commands")
    yes = flow.wait_for_approval("yes")
    parts = flow.fan_out("parts", act, [ONE] * 30, after=[yes])
    flow.step("last", act, ONE, after=[parts])
    return flow.start().id


def test_verbs_take_the_beginning_of_an_id_and_tell_what_will_run(stage: FlowStage) -> None:
    flow_id = start()
    begin = str(flow_id)[:7]

    assert "yes" in flows("show", begin).stdout
    assert flows("approve", begin, "yes").stdout == f"{flow_id} approved yes\n"
    stage.run(flow_id, "parts[3]", "failed", error="no")
    assert flows("resume", begin, "--reason", "mended").stdout == f"{flow_id} resumed; it runs parts, last\n"
    stage.run(flow_id, "parts[3]", "failed", error="no")
    assert flows("retry-step", begin, "parts[3]").stdout == f"{flow_id} runs parts, last\n"
    assert flows("skip", begin, "last", "--yes", "--reason", "no need").exit_code == 0
    assert flows("cancel", begin, "--yes").stdout == f"{flow_id} is cancelled\n"
    assert stage.flow(flow_id).state == "cancelled"


def test_what_cannot_be_done_is_one_clear_line(stage: FlowStage) -> None:
    first = start()
    others = [start() for _ in range(17)]  # of so many, two begin alike
    begins = [str(each)[0] for each in (first, *others)]
    twice = next(begin for begin in begins if begins.count(begin) > 1)
    name = str(first)
    for words, code, text in (
        (("show", twice), 2, "several ids begin with"),
        (("show", "wrong!"), 2, "is not an id"),
        (("show", "00000000-0000-4000-8000-000000000000"), 3, "no flow 00000000-0000-4000-8000-000000000000"),
        (("approve", name, "nobody"), 3, "has no step called 'nobody'"),
        (("approve", name, "last"), 1, "step 'last' waits for no approval"),
        (("retry-step", name, "last"), 1, "only a failed step is retried"),
        (("resume", name), 1, "only a failed, compensated or cancelled one resumes"),
        (("cancel", name), 2, "confirm with --yes"),
        (("skip", name, "last", "--yes"), 2, "--reason"),
    ):
        ended = flows(*words)
        assert (ended.exit_code, text in ended.stderr, ended.stderr.count("\n")) == (code, True, 1), (
            words,
            ended.output,
        )
    assert stage.states(first)["last"] == "blocked"
