"""What the failure of members means to their group, and large groups."""

from typing import Any

import psutil
import pytest

from taskyard.flows.definition.flow import Flow
from taskyard.flows.states import POLICIES, IfFailed
from tests.flows.app import Act, Gather, act, gather
from tests.flows.flow_stage import FlowStage

FAILING = 10
LONG = (pytest.mark.chaos, pytest.mark.timeout(1800))
MIB = 2**20


@pytest.mark.parametrize("size", [60, pytest.param(1000, marks=LONG)])
def test_ten_failed_members_mean_what_the_policy_says(stage: FlowStage, size: int) -> None:
    failing = set(range(size // FAILING - 1, size, size // FAILING))
    runs = {policy: _header(size, failing, policy) for policy in POLICIES}
    stage.worker(slots=8)
    states = {policy: stage.wait_ended(run.id, 600) for policy, run in runs.items()}
    steps = {policy: stage.steps(run.id) for policy, run in runs.items()}
    total = sum(set(range(size)) - failing)

    assert states == {"fail": "failed", "ignore": "succeeded", "continue": "succeeded", "drop": "succeeded"}
    assert steps["fail"]["body"].state == "cancelled"
    assert "parts[" in (stage.flow(runs["fail"].id).reason or "")
    assert {row.state for row in steps["fail"].values()} <= {"succeeded", "failed", "cancelled"}
    assert steps["ignore"]["body"].result == {"count": size - FAILING, "sum": total, "failures": FAILING}
    assert steps["drop"]["body"].result == {"count": size - FAILING, "sum": total, "failures": 0}
    early = steps["continue"]["body"].result
    assert early["failures"] >= 1
    assert early["count"] < size - FAILING, "the body did not wait for all"
    for policy in ("ignore", "continue", "drop"):
        failed = {row.name for row in steps[policy].values() if row.state == "failed"}
        assert failed == {f"parts[{number}]" for number in failing}


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_ten_thousand_members_cost_a_worker_no_memory(stage: FlowStage) -> None:
    worker = stage.worker(slots=16)
    _run_header(stage, 1000)
    before = psutil.Process(worker.pid).memory_info().rss
    _run_header(stage, 10_000)
    assert psutil.Process(worker.pid).memory_info().rss - before < 20 * MIB


def _run_header(stage: FlowStage, size: int) -> None:
    run = _header(size, set(), "fail")
    assert stage.wait_ended(run.id, 900) == "succeeded"
    assert stage.steps(run.id)["body"].result == {"count": size, "sum": sum(range(size)), "failures": 0}


def _header(size: int, failing: set[int], policy: IfFailed) -> Any:
    flow = Flow("test.header")
    members = [Act(name=f"m{number}", value=number, is_permanent=number in failing) for number in range(size)]
    parts = flow.fan_out("parts", act, members, if_failed=policy, at_once=20)
    flow.step("body", gather, Gather(group="parts"), after=[parts])
    return flow.start()
