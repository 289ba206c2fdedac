"""Runs over all markets, step by step: one report, a line for each market, and a sweeper that finds what was lost."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlmodel import col

from scripts.standins.soroban_node import StandinNode, account
from tasks.reconciliation import handlers
from tasks.reconciliation.models import MarketLine, PositionRow, Report
from taskyard.database.columns import utc_now
from tests.reconciliation.desk import Desk

ALICE = account(1)


def test_a_run_has_a_line_for_every_market_and_completes_with_the_last(desk: Desk, node: StandinNode) -> None:
    for market_id in ("a", "b", "c"):
        desk.world.market(market_id)
        desk.world.predict(("yes", 10), market_id=market_id, address=ALICE)
        node.put(market_id, [(ALICE, "yes", 10 if market_id != "b" else 9)])
    node.fail("c")

    started = desk.run()
    assert (started.state, desk.dispatched) == ("running", ["a", "b", "c"])
    desk.check(started.report_id, "a", "b")
    assert desk.finish(started.report_id).state == "running"
    desk.check(started.report_id, "c")
    done = desk.finish(started.report_id)

    assert (done.state, done.status, done.severity, done.drift) == ("completed", "partial", "critical", "1")
    report, lines = desk.report(started.report_id), desk.lines(started.report_id)
    assert (report.markets, report.markets_ok, report.markets_partial) == (3, 2, 1)
    assert (report.db_total, report.chain_total) == (20, 19)
    assert {name: line.status for name, line in lines.items()} == {"a": "ok", "b": "ok", "c": "partial"}
    assert "storage is not readable" in (lines["c"].error or "")
    assert [action.action for action in desk.actions()] == ["admin.reconciliation.global.run"]


def test_a_market_that_is_compared_twice_counts_once(desk: Desk, node: StandinNode) -> None:
    desk.world.predict(("yes", 1), market_id=desk.world.market())
    node.put("m", [])
    started = desk.run()

    checked = [desk.check(started.report_id, "m")[0].status for _ in range(2)]

    assert checked == ["ok", "already_done"]
    assert len(desk.rows(started.report_id)) == 1
    assert desk.finish(started.report_id).drift == desk.finish(started.report_id).drift == "1"
    assert len(desk.world.events("reconciliation.drift")) == 1


def test_a_run_that_is_started_twice_is_one_run(desk: Desk, node: StandinNode) -> None:
    """A worker that dies between the report and its messages: the second execution sends what is pending."""
    for market_id in ("a", "b"):
        desk.world.market(market_id)
        node.put(market_id, [])
    report_id = uuid4()
    desk.run(report_id)
    desk.check(report_id, "a")
    desk.dispatched.clear()

    desk.run(report_id)

    assert desk.dispatched == ["b"]
    assert len(desk.actions()) == 1


def test_a_run_over_no_markets_is_complete_at_once(desk: Desk) -> None:
    done = desk.run()

    assert (done.state, done.status, done.markets) == ("completed", "ok", 0)


def test_a_run_without_a_readable_chain_is_complete_at_once_and_partial(desk: Desk, node: StandinNode) -> None:
    """A thousand members would each wait for the same dead node."""
    for market_id in ("a", "b"):
        desk.world.market(market_id)
    node.stop()

    done = desk.run()

    assert (done.state, done.status, done.severity, desk.dispatched) == ("completed", "partial", "none", [])
    assert {line.status for line in desk.lines(done.report_id).values()} == {"partial"}


def test_the_sweeper_completes_a_run_whose_last_step_was_lost(desk: Desk, node: StandinNode) -> None:
    desk.world.market()
    node.put("m", [])
    started = desk.run()
    desk.check(started.report_id, "m")

    swept, _ = desk.sweep()

    assert (swept.completed, desk.report(started.report_id).state) == (1, "completed")
    assert desk.sweep()[0].completed == 0


def test_the_sweeper_sends_lost_markets_again_a_few_times(desk: Desk, node: StandinNode) -> None:
    for market_id in ("a", "b"):
        desk.world.market(market_id)
        node.put(market_id, [])
    started = desk.run()
    desk.check(started.report_id, "a")

    assert desk.sweep()[1] == []  # too early
    sent = []
    for _ in range(4):
        _age(desk, MarketLine.sent_at, desk.settings.reconciliation_member_timeout)
        sent.append([lost.market_id for lost in desk.sweep()[1]])

    assert sent == [["b"], ["b"], [], []]


def test_a_market_that_never_answers_is_a_failed_line_at_the_deadline(desk: Desk, node: StandinNode) -> None:
    """The report comes, whatever happened to a member."""
    for market_id in ("a", "b"):
        desk.world.market(market_id)
        node.put(market_id, [])
    started = desk.run()
    desk.check(started.report_id, "a")
    _age(desk, Report.started_at, desk.settings.reconciliation_deadline)

    desk.sweep()

    report = desk.report(started.report_id)
    assert (report.state, report.status, report.markets_ok, report.markets_failed) == ("completed", "partial", 1, 1)
    assert desk.lines(started.report_id)["b"].status == "failed"
    assert desk.check(started.report_id, "b")[0].status == "already_done"  # its answer comes too late to change it


def test_old_reports_are_removed_with_all_their_rows(desk: Desk, node: StandinNode) -> None:
    desk.world.predict(("yes", 1), market_id=desk.world.market())
    node.put("m", [])
    desk.market()
    _age(desk, Report.started_at, timedelta(days=desk.settings.reconciliation_retention_days, hours=1))
    kept = desk.market()

    assert desk.sweep()[0].pruned == 1

    assert (desk.world.count(Report), desk.world.count(MarketLine), desk.world.count(PositionRow)) == (1, 1, 1)
    assert desk.report(kept.report_id).id == kept.report_id


def test_a_removed_report_ends_its_tasks(desk: Desk) -> None:
    for action in (lambda: desk.check(uuid4(), "m"), lambda: [desk.finish(uuid4())]):
        with pytest.raises(handlers.ReportNotFoundError):
            action()


def _age(desk: Desk, column: Any, by: timedelta) -> None:
    """Move a moment of all rows into the past."""
    with desk.world.database.session() as session, session.begin():
        session.execute(update(column.class_).values({col(column): utc_now() - by}))
