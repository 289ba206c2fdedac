"""The demo's act on flows shows what it says."""

import pytest

from scripts.demo.flows import show_flow
from tests.flows.flow_stage import FlowStage


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_order_is_undone_mended_and_resumed(stage: FlowStage) -> None:
    said: list[str] = []
    stage.worker(more=("--include", "scripts.demo.orders"))

    flow_id = show_flow(stage.folder, said.append)

    first, again, rest = said[0], said[6], [line.split()[:3] for line in said[1:6] + said[7:]]
    assert "step 'ship' failed: PermanentError: the courier's key is missing" in first
    assert again.endswith("resumed, which runs reserve, charge, ship")
    assert rest == [
        ["<", "reserve", "compensated"],
        ["+", "undo:reserve", "succeeded"],
        ["<", "charge", "compensated"],
        ["+", "undo:charge", "succeeded"],
        ["x", "ship", "failed"],
        ["+", "reserve", "succeeded"],
        ["~", "undo:reserve", "skipped"],
        ["+", "charge", "succeeded"],
        ["~", "undo:charge", "skipped"],
        ["+", "ship", "succeeded"],
    ]
    assert stage.steps(flow_id)["ship"].result == "sent from shelf of 42"
