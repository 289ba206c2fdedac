"""`celery -A tasks recon`: compare with the chain now, and read what was found."""

import getpass
import time
from typing import Any
from uuid import UUID, uuid4

import click
from sqlmodel import col

from tasks.reconciliation import queries
from tasks.reconciliation.comparison import ALERTING
from tasks.reconciliation.models import Report
from tasks.reconciliation.payloads import Reconcile
from tasks.reconciliation.tasks import open_store, reconcile, report_id_of
from taskyard import InvalidPayloadError
from taskyard.cli.kit.common_options import WaitSecondsParam, change_options, json_option, page_options
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand, PartlyDoneError
from taskyard.cli.kit.id_prefixes import IdParam
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.recorded_changes import logged_change
from taskyard.cli.kit.tables import print_table
from taskyard.database.engine import open_session

POLL_INTERVAL = 0.2  # seconds between two looks at SQL, which tells nobody when it changes
REPORT_ID = IdParam("report", col(Report.id))
LINES = 50  # of a report, without --all


@click.group("recon")
def group() -> None:
    """Reconciliation with the chain: run, report, drifts."""


@group.command("run", cls=OperatorCommand)
@click.option("--market", "market_id", metavar="MARKET", help="Only this market; default: all.")
@click.option(
    "--wait",
    "wait_seconds",
    type=WaitSecondsParam(0, 86_400),
    default=0,
    show_default=True,
    help="Seconds to wait for the report; its outcome is then the exit code.",
)
@change_options
@json_option
def run(*, market_id: str | None, wait_seconds: float, reason: str, as_json: bool) -> None:
    """
    Compare all markets, or one, with the chain.

    With --wait: 0 no drift that matters, 1 drift, 4 partial.
    """
    correlation_id = str(uuid4())
    try:
        payload = _request(market_id, correlation_id)
    except InvalidPayloadError as error:
        raise click.UsageError(str(error)) from error
    if payload.market_id is not None and not open_store().has_market(payload.market_id):
        raise NotFoundError(f"no market {payload.market_id!r}")
    with logged_change("recon run", market_id or "", reason=reason, facts={"correlation_id": correlation_id}):
        sent = reconcile.enqueue(payload)
    report_id = report_id_of(sent.id)
    if not wait_seconds:
        facts = {"run_id": sent.id, "report_id": report_id, "correlation_id": correlation_id}
        print_json(facts) if as_json else print_facts(facts)
        return
    report = _wait(report_id, wait_seconds)
    _print_report(report, [], as_json=as_json)
    _end(report)


@group.command("report", cls=OperatorCommand)
@click.argument("report_id", metavar="[REPORT]", type=REPORT_ID, required=False)
@click.option("--all", "everything", is_flag=True, help="All markets, not only those that need a look.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=LINES, show_default=True, help="Markets at most.")
@json_option
def report_command(*, report_id: UUID | None, everything: bool, limit: int, as_json: bool) -> None:
    """Show a report, by default the newest, with the markets that are not ok or differ."""
    report = _find(report_id)
    with open_session() as session:
        lines = queries.list_lines(session, report.id, everything=everything, limit=limit)
    _print_report(report, lines, as_json=as_json)


@group.command("drifts", cls=OperatorCommand)
@click.argument("report_id", metavar="[REPORT]", type=REPORT_ID, required=False)
@click.option("--market", "market_id", metavar="MARKET", help="Of this market.")
@page_options
@json_option
def drifts(*, report_id: UUID | None, market_id: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """List the positions of a report, by default the newest, whose sides differ."""
    report = _find(report_id)
    with open_session() as session:
        if market_id is not None and not queries.has_line(session, report.id, market_id):
            raise NotFoundError(f"no market {market_id!r} in report {report.id}")
        page = queries.list_drifts(session, report.id, market_id, limit=limit, after=after)
    if as_json:
        items = [row.model_dump(mode="json") for row in page.rows]
        print_json({"report_id": report.id, "items": items, "next": page.after})
        return
    columns = ("market", "address", "outcome", "kind", "database", "chain", "difference", "severity")
    print_table(columns, [tuple(row.model_dump().values()) for row in page.rows])
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


def _request(market_id: str | None, correlation_id: str) -> Reconcile:
    actor = f"os:{getpass.getuser()}"
    if market_id is None:
        return Reconcile.checked(type="global", admin_address=actor, ip="local", correlation_id=correlation_id)
    return Reconcile.checked(
        type="market", market_id=market_id, admin_address=actor, ip="local", correlation_id=correlation_id
    )


def _wait(report_id: UUID, seconds: float) -> queries.ReportView:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        report = _look(report_id)
        if report is not None and report.state == "completed":
            return report
        time.sleep(POLL_INTERVAL)
    raise FailedError(f"no complete report {report_id} within {seconds:g} s; look again with: recon report {report_id}")


def _look(report_id: UUID) -> queries.ReportView | None:
    """Return the report; None: its task has not started yet."""
    try:
        with open_session() as session:
            return queries.find_report(session, report_id)
    except queries.UnknownReportError:
        return None


def _find(report_id: UUID | None) -> queries.ReportView:
    try:
        with open_session() as session:
            return queries.find_report(session, report_id)
    except queries.UnknownReportError as error:
        raise NotFoundError(str(error)) from error


def _print_report(report: queries.ReportView, lines: list[queries.LineView], *, as_json: bool) -> None:
    if as_json:
        print_json({**report.model_dump(mode="json"), "lines": [line.model_dump(mode="json") for line in lines]})
        return
    print_facts({name: value for name, value in report.model_dump().items() if value is not None})
    if lines:
        click.echo()
        columns = ("market", "status", "severity", "differing", "database", "chain", "drift", "left out", "error")
        print_table(columns, [_row(line) for line in lines])


def _row(line: queries.LineView) -> tuple[Any, ...]:
    differing = line.mismatches + line.missing_on_chain + line.missing_in_db
    begin = (line.market_id, line.status or "pending", line.severity, differing)
    return (*begin, line.db_total, line.chain_total, line.drift, line.left_out, line.error)


def _end(report: queries.ReportView) -> None:
    if report.severity in ALERTING:
        raise FailedError(f"{report.severity} drift of {report.drift}: see celery -A tasks recon drifts {report.id}")
    if report.status != "ok":
        missing = report.markets_partial + report.markets_failed
        raise PartlyDoneError(f"{missing} of {report.markets} markets could not be compared")
