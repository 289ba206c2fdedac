"""`celery -A tasks markets`: what a person must decide - conflicts, oracle refusals, disputes - and the decisions."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from sqlmodel import Session, col

from tasks.markets import decisions, queries
from tasks.markets.models import Conflict, Market, OracleRefusal, Resolution
from tasks.markets.payloads import ResolveMarket
from tasks.markets.tasks import open_store
from taskyard import InvalidPayloadError
from taskyard.cli.kit.common_options import TimeParam, check_confirmed, destructive_options, json_option, page_options
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import IdParam, TextIdParam
from taskyard.cli.kit.output import print_json, print_result
from taskyard.cli.kit.recorded_changes import recorded_transaction
from taskyard.cli.kit.tables import print_table
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session

MARKET_ID = TextIdParam(col(Market.id))
REFUSAL_ID = IdParam("oracle refusal", col(OracleRefusal.id))
REVIEW_ID = IdParam("conflict or oracle refusal", col(Conflict.id), col(OracleRefusal.id))

market_option = click.option("--market", "market_id", type=MARKET_ID, metavar="MARKET", help="Of this market.")
everything_option = click.option("--all", "everything", is_flag=True, help="Also what somebody has decided.")


@click.command("conflicts", cls=OperatorCommand)
@market_option
@everything_option
@page_options
@json_option
def conflicts(*, market_id: str | None, everything: bool, limit: int, after: str | None, as_json: bool) -> None:
    """List events that named another winner for a resolved market, the newest first."""
    wanted = _wanted(market_id, everything=everything)
    with open_session() as session:
        page = queries.list_conflicts(session, wanted, limit=limit, after=after)
    columns = ("id", "market", "claimed", "resolved as", "ledger", "times", "last seen (UTC)", "decision")
    rows = [
        (row.id, row.market_id, row.claimed_outcome, row.resolved_outcome, row.ledger, *_seen(row)) for row in page.rows
    ]
    _print_page(columns, rows, page, as_json=as_json)


@click.command("refusals", cls=OperatorCommand)
@market_option
@everything_option
@page_options
@json_option
def refusals(*, market_id: str | None, everything: bool, limit: int, after: str | None, as_json: bool) -> None:
    """List events that the oracle guard has refused, of markets that are not resolved, the newest first."""
    wanted = _wanted(market_id, everything=everything)
    with open_session() as session:
        page = queries.list_refusals(session, wanted, limit=limit, after=after)
    columns = ("id", "market", "claimed", "reason", "ledger", "times", "last seen (UTC)", "decision")
    rows = [(row.id, row.market_id, row.claimed_outcome, row.reason, row.ledger, *_seen(row)) for row in page.rows]
    _print_page(columns, rows, page, as_json=as_json)


@click.command("disputes", cls=OperatorCommand)
@page_options
@json_option
def disputes(*, limit: int, after: str | None, as_json: bool) -> None:
    """List disputed markets, whose resolution waits, the newest first."""
    with open_session() as session:
        page = queries.list_markets(session, "disputed", limit=limit, after=after)
    rows = [(row.id, row.created_at, row.title) for row in page.rows]
    _print_page(("market", "created (UTC)", "title"), rows, page, as_json=as_json)


@click.command("acknowledge", cls=OperatorCommand)
@click.argument("ids", type=REVIEW_ID, nargs=-1, required=True, metavar="ID...")
@destructive_options(needs_reason=True)
@json_option
def acknowledge(*, ids: tuple[UUID, ...], yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Acknowledge conflicts and oracle refusals: all of these, or none."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    found = list(dict.fromkeys(ids))
    with _refusals_as_errors(), _transaction("acknowledge", ", ".join(map(str, found[:6])), reason, dry_run) as session:
        rows = decisions.acknowledge(session, found, _decider(reason))
        acknowledged = [{"id": row.id, "market_id": row.market_id} for row in rows]
    line = f"{'would be ' * dry_run}acknowledged: {', '.join(map(str, found))}"
    print_result(line, as_json=as_json, acknowledged=acknowledged, dry_run=dry_run)


@click.command("override", cls=OperatorCommand)
@click.argument("refusal_id", type=REFUSAL_ID, metavar="REFUSAL")
@destructive_options(needs_reason=True)
@json_option
def override(*, refusal_id: UUID, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Settle a market now, as an event said that the oracle guard has refused."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    with _refusals_as_errors(), _transaction("override", str(refusal_id), reason, dry_run) as session:
        _print_resolution(decisions.override(session, refusal_id, _decider(reason), open_store()), dry_run, as_json)


@click.command("settle", cls=OperatorCommand)
@click.argument("market_id", metavar="MARKET", type=MARKET_ID)
@click.option("--outcome", required=True, metavar="OUTCOME", help="The winner as you decide; VOID refunds all.")
@click.option("--ledger", type=click.IntRange(0), required=True, metavar="N", help="Block or ledger to record.")
@click.option("--at", "event_at", type=TimeParam(), metavar="WHEN", help="Time of the decision; default: now.")
@destructive_options(needs_reason=True)
@json_option
def settle(  # noqa: PLR0913 - an option each
    *,
    market_id: str,
    outcome: str,
    ledger: int,
    event_at: datetime | None,
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> None:
    """
    Settle a market now, disputed or not, as you decide.

    The oracle guard is not asked. An event that waits for the end of a dispute
    is then compared with your decision: another winner is a conflict.
    """
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    try:
        event = ResolveMarket.checked(
            market_id=market_id, winning_outcome=outcome, ledger=ledger, timestamp=event_at or utc_now()
        )
    except InvalidPayloadError as error:
        raise click.UsageError(str(error)) from error
    with _refusals_as_errors(), _transaction("settle", market_id, reason, dry_run) as session:
        _print_resolution(decisions.settle(session, event, _decider(reason), open_store()), dry_run, as_json)


@click.command("reopen", cls=OperatorCommand)
@click.argument("market_id", metavar="MARKET", type=MARKET_ID)
@destructive_options(needs_reason=True)
@json_option
def reopen(*, market_id: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """End a market's dispute: the event that waits resolves it at its next look."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    with _refusals_as_errors(), _transaction("reopen", market_id, reason, dry_run) as session:
        decisions.reopen(session, market_id, _decider(reason))
    print_result(f"{market_id} {'would be ' * dry_run}open again", as_json=as_json, market=market_id, dry_run=dry_run)


COMMANDS = (conflicts, refusals, disputes, acknowledge, override, settle, reopen)


@contextmanager
def _transaction(verb: str, target: str, reason: str, dry_run: bool) -> Iterator[Session]:  # noqa: FBT001 - the option
    """Open a transaction with its row of the operator log; a dry run is rolled back."""
    if dry_run:
        with open_session() as session:
            yield session
            session.rollback()
        return
    with recorded_transaction(f"markets {verb}", target, reason=reason) as session:
        yield session


@contextmanager
def _refusals_as_errors() -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        raise NotFoundError(str(error)) from error
    except decisions.DecisionRefusedError as error:
        raise FailedError(str(error)) from error


def _wanted(market_id: str | None, *, everything: bool) -> queries.ReviewFilter:
    if market_id is not None:
        with _refusals_as_errors(), open_session() as session:
            queries.show_market(session, market_id)
    return queries.ReviewFilter(market_id=market_id, everything=everything)


def _decider(reason: str) -> decisions.Decider:
    return decisions.Decider(f"os:{getpass.getuser()}", reason)


def _seen(row: queries.ReviewView) -> tuple[Any, ...]:
    return row.times_seen, row.last_seen_at, row.decision


def _print_page(columns: tuple[str, ...], rows: list[Any], page: Any, *, as_json: bool) -> None:
    if as_json:
        print_json({"items": [row.model_dump(mode="json") for row in page.rows], "next": page.after})
        return
    print_table(columns, rows)
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


def _print_resolution(row: Resolution, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001 - the options
    facts = {"market_id": row.market_id, "winning_outcome": row.winning_outcome, "kind": row.kind}
    amounts = {"pool": str(row.pool), "fee": str(row.fee), "paid": str(row.paid)}
    line = f"{row.market_id} {'would be ' * dry_run}settled as {row.winning_outcome}: pool {row.pool}, fee {row.fee}"
    print_result(line, as_json=as_json, **facts, **amounts, dry_run=dry_run)
