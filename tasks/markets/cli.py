"""`celery -A tasks markets`: resolve markets by hand, and list markets and conflicts."""

from datetime import datetime
from typing import Any

import click

from tasks.markets import queries
from tasks.markets.models import MARKET_STATES
from tasks.markets.payloads import ResolveMarket
from tasks.markets.tasks import resolve
from taskyard import InvalidPayloadError
from taskyard.cli.kit.common_options import TimeParam, check_confirmed, destructive_options, json_option, page_options
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.recorded_changes import logged_change
from taskyard.cli.kit.tables import print_table
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session

market_argument = click.argument("market_id", metavar="MARKET")


@click.group("markets")
def group() -> None:
    """Prediction markets: resolve, status, conflicts."""


@group.command("resolve", cls=OperatorCommand)
@market_argument
@click.option(
    "--outcome", required=True, metavar="OUTCOME", help="Winning outcome, exactly as stored; VOID refunds all."
)
@click.option("--ledger", type=click.IntRange(0), required=True, metavar="N", help="Block or ledger of the event.")
@click.option("--at", "event_at", type=TimeParam(), metavar="WHEN", help="Time of the event; default: now.")
@destructive_options(needs_reason=True)
@json_option
def resolve_command(  # noqa: PLR0913 - an option each
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
    """Enqueue the resolution of a market, as the indexer does."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    fields: dict[str, Any] = {"market_id": market_id, "winning_outcome": outcome, "ledger": ledger}
    try:
        payload = ResolveMarket.checked(**fields, timestamp=event_at or utc_now())
    except InvalidPayloadError as error:
        raise click.UsageError(str(error)) from error
    market = _find(market_id)
    try:
        queries.check_resolvable(market, outcome)
    except ValueError as error:
        raise FailedError(str(error)) from error
    facts = {"market_id": market_id, "outcome": outcome, "confirmed": market.predictions["confirmed"]}
    if dry_run:
        _say(facts | {"dry_run": True}, f"would resolve {market_id} as {outcome}", as_json=as_json)
        return
    with logged_change("markets resolve", market_id, reason=reason, facts=fields):
        run = resolve.enqueue(payload)
    _say(facts | {"dry_run": False, "run_id": run.id}, f"{market_id} as {outcome}: run {run.id}", as_json=as_json)


@group.command("status", cls=OperatorCommand)
@click.argument("market_id", metavar="[MARKET]", required=False)
@click.option("--state", type=click.Choice(MARKET_STATES), help="Only markets in this state.")
@page_options
@json_option
def status(*, market_id: str | None, state: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """Show one market with its predictions counted, or list markets, the newest first."""
    if market_id is not None:
        market = _find(market_id)
        if as_json:
            print_json(market.model_dump(mode="json"))
        else:
            print_facts({name: value for name, value in market.model_dump().items() if value is not None})
        return
    with open_session() as session:
        page = queries.list_markets(session, state, limit=limit, after=after)
    if as_json:
        print_json({"items": [row.model_dump(mode="json") for row in page.rows], "next": page.after})
        return
    columns = ("id", "state", "winner", "resolved (UTC)", "title")
    print_table(columns, [(row.id, row.state, row.winning_outcome, row.resolved_at, row.title) for row in page.rows])
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("conflicts", cls=OperatorCommand)
@click.option("--market", "market_id", metavar="MARKET", help="Of this market.")
@page_options
@json_option
def conflicts(*, market_id: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """List events that named another winner for a resolved market, the newest first."""
    if market_id is not None:
        _find(market_id)
    with open_session() as session:
        page = queries.list_conflicts(session, market_id, limit=limit, after=after)
    if as_json:
        print_json({"items": [row.model_dump(mode="json") for row in page.rows], "next": page.after})
        return
    columns = ("market", "resolved as", "claimed", "ledger", "times", "first seen (UTC)", "last seen (UTC)")
    print_table(
        columns,
        [(row.market_id, row.resolved_outcome, row.claimed_outcome, row.ledger, *_seen(row)) for row in page.rows],
    )
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


def _find(market_id: str) -> queries.MarketDetails:
    try:
        with open_session() as session:
            return queries.show_market(session, market_id)
    except queries.MarketNotFoundError as error:
        raise NotFoundError(str(error)) from error


def _seen(row: queries.ConflictView) -> tuple[Any, ...]:
    return row.times_seen, row.first_seen_at, row.last_seen_at


def _say(facts: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        click.echo(line)
