"""Runs over all markets, step by step: one report, which has a line for each market and comes whatever became of it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlmodel import col

from scripts.standins.soroban_node import StandinNode, account
from tasks.reconciliation import handlers
from tasks.reconciliation.metrics import figures
from tasks.reconciliation.models import MarketLine, PositionRow, Report
from taskyard.database.columns import utc_now
from tests.reconciliation.reconciler import Reconciler

ALICE = account(1)


def test_a_run_has_a_line_for_every_market_and_completes_with_the_last(
    reconciler: Reconciler, node: StandinNode
) -> None:
    for market_id in ("a", "b", "c"):
        reconciler.market_rows.market(market_id)
        reconciler.market_rows.predict(("yes", 10), market_id=market_id, address=ALICE)
        node.put(market_id, [(ALICE, "yes", 10 if market_id != "b" else 9)])
    node.fail("c")

    started = reconciler.run()
    assert (started.state, reconciler.started) == ("running", ["a", "b", "c"])
    reconciler.check(started.report_id, "a", "b", "c")
    done = reconciler.finish(started.report_id)

    assert (done.state, done.status, done.severity, done.drift) == ("completed", "partial", "critical", "1")
    report, lines = reconciler.report(started.report_id), reconciler.lines(started.report_id)
    assert (report.markets, report.markets_ok, report.markets_partial) == (3, 2, 1)
    assert (report.db_total, report.chain_total) == (20, 19)
    assert {name: line.status for name, line in lines.items()} == {"a": "ok", "b": "ok", "c": "partial"}
    assert "storage is not readable" in (lines["c"].error or "")
    assert [action.action for action in reconciler.actions()] == ["admin.reconciliation.global.run"]


def figures_of(reconciler: Reconciler) -> dict[str, float]:
    with reconciler.market_rows.database.session() as session:
        return {each.name.removeprefix("taskyard_reconciliation_"): each.value for each in figures(session)}


def test_the_metrics_tell_what_a_run_left_out_and_that_it_drifts(reconciler: Reconciler, node: StandinNode) -> None:
    for market_id, ledger in (("a", 0), ("b", node.ledger + 1000), ("c", node.ledger + 1000)):
        reconciler.market_rows.predict(("yes", 1), market_id=reconciler.market_rows.market(market_id), ledger=ledger)
    started = reconciler.run()
    reconciler.check(started.report_id, "a", "b", "c")

    reconciler.finish(started.report_id)

    found = figures_of(reconciler)
    assert (found["ok"], found["drift"], found["left_out"]) == (1, 1, 2)


def test_a_node_that_stands_still_makes_a_run_partial_and_tells_somebody(
    reconciler: Reconciler, node: StandinNode
) -> None:
    reconciler.market_rows.predict(("yes", 1), market_id=reconciler.market_rows.market())
    node.report_health(result={"status": "healthy", "latestLedgerCloseTime": "1700000000"})

    done = reconciler.run()

    assert (done.state, done.status, done.severity) == ("completed", "partial", "none")
    assert "the node is stale" in (reconciler.lines(done.report_id)["m"].error or "")
    assert len(reconciler.market_rows.events("reconciliation.incomplete")) == 1
    assert figures_of(reconciler)["ok"] == 0


def test_a_market_that_is_compared_twice_counts_once(reconciler: Reconciler, node: StandinNode) -> None:
    reconciler.market_rows.predict(("yes", 1), market_id=reconciler.market_rows.market())
    node.put("m", [])
    started = reconciler.run()

    checked = [reconciler.check(started.report_id, "m")[0].status for _ in range(2)]

    assert checked == ["ok", "already_done"]
    assert len(reconciler.rows(started.report_id)) == 1
    assert reconciler.finish(started.report_id).drift == reconciler.finish(started.report_id).drift == "1"
    assert len(reconciler.market_rows.events("reconciliation.drift")) == 1


def test_a_run_that_is_started_twice_is_one_run(reconciler: Reconciler, node: StandinNode) -> None:
    """A worker that dies behind the report: its flow was stored with it."""
    for market_id in ("a", "b"):
        reconciler.market_rows.market(market_id)
        node.put(market_id, [])
    report_id = uuid4()

    states = [reconciler.run(report_id).state for _ in range(2)]

    assert states == ["running", "running"]
    assert reconciler.started == ["a", "b"]
    assert len(reconciler.actions()) == 1


def test_a_run_over_no_markets_is_complete_at_once(reconciler: Reconciler) -> None:
    done = reconciler.run()

    assert (done.state, done.status, done.markets) == ("completed", "ok", 0)


def test_a_run_without_a_readable_chain_is_complete_at_once_and_partial(
    reconciler: Reconciler, node: StandinNode
) -> None:
    """A thousand members would each wait for the same dead node; and somebody is told."""
    for market_id in ("a", "b"):
        reconciler.market_rows.market(market_id)
    node.stop()

    done = reconciler.run()

    assert (done.state, done.status, done.severity, reconciler.started) == ("completed", "partial", "none", [])
    assert {line.status for line in reconciler.lines(done.report_id).values()} == {"partial"}
    assert len(reconciler.market_rows.events("reconciliation.incomplete")) == 1


def test_a_market_without_an_answer_is_a_failed_line(reconciler: Reconciler, node: StandinNode) -> None:
    """The report comes, whatever happened to a member."""
    for market_id in ("a", "b"):
        reconciler.market_rows.market(market_id)
        node.put(market_id, [])
    started = reconciler.run()
    reconciler.check(started.report_id, "a")

    reconciler.finish(started.report_id)

    report = reconciler.report(started.report_id)
    assert (report.state, report.status, report.markets_ok, report.markets_failed) == ("completed", "partial", 1, 1)
    assert reconciler.lines(started.report_id)["b"].status == "failed"
    assert (
        reconciler.check(started.report_id, "b")[0].status == "already_done"
    )  # its answer comes too late to change it


def test_old_reports_are_removed_with_all_their_rows(reconciler: Reconciler, node: StandinNode) -> None:
    reconciler.market_rows.predict(("yes", 1), market_id=reconciler.market_rows.market())
    node.put("m", [])
    reconciler.market()
    _age(reconciler, Report.started_at, timedelta(days=reconciler.settings.reconciliation_retention_days, hours=1))
    kept = reconciler.market()

    assert reconciler.sweep().pruned == 1

    assert (
        reconciler.market_rows.count(Report),
        reconciler.market_rows.count(MarketLine),
        reconciler.market_rows.count(PositionRow),
    ) == (1, 1, 1)
    assert reconciler.report(kept.report_id).id == kept.report_id


def test_a_removed_report_ends_its_tasks(reconciler: Reconciler) -> None:
    for action in (lambda: reconciler.check(uuid4(), "m"), lambda: [reconciler.finish(uuid4())]):
        with pytest.raises(handlers.ReportNotFoundError):
            action()


def _age(reconciler: Reconciler, column: Any, by: timedelta) -> None:
    """Move a moment of all rows into the past."""
    with reconciler.market_rows.database.session() as session, session.begin():
        session.execute(update(column.class_).values({col(column): utc_now() - by}))
