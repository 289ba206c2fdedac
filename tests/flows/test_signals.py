"""Signals find the steps that wait for them by an index."""

from typing import Any

import pytest
from sqlalchemy import event, text

from taskyard.database.engine import current_engine
from taskyard.flows import steering
from taskyard.flows.definition.flow import Flow
from taskyard.flows.plan import FlowDefinitionError
from tests.flows.flow_stage import FlowStage


def test_a_signal_reads_only_the_steps_that_wait_for_it(stage: FlowStage) -> None:
    for number in range(30):
        flow = Flow("test.signals")
        flow.wait_for_event("paid", "payment.received", f"order-{number}")
        flow.start()
    reads: list[tuple[str, Any]] = []
    event.listen(current_engine(), "before_cursor_execute", lambda *facts: reads.append((facts[2], facts[3])))

    assert steering.signal_flow("payment.received", "order-7") == 1
    assert steering.signal_flow("payment.received", "order-7") == 0

    read = next(read for read in reads if read[0].startswith("SELECT"))
    plan = _plan(stage, *read) if stage.database.kind == "sqlite" else _plan_of_postgresql(stage, *read)
    assert "ix_taskyard_flow_steps_event" in plan


@pytest.mark.parametrize(("name", "key"), [("payment:received", "7"), ("", "7"), ("paid", "k" * 600), ("paid", "a\nb")])
def test_an_event_that_no_signal_can_name_is_refused(name: str, key: str) -> None:
    with pytest.raises(FlowDefinitionError, match="event"):
        Flow("test.signals").wait_for_event("paid", name, key)


def _plan(stage: FlowStage, statement: str, values: Any) -> str:
    with stage.database.engine.connect() as connection:
        return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())


def _plan_of_postgresql(stage: FlowStage, statement: str, values: Any) -> str:
    """With so few rows it would read them all, so that is forbidden."""
    with stage.database.engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return str(connection.exec_driver_sql(f"EXPLAIN {statement}", values).all())
