"""`celery -A tasks markets`: resolve markets by hand, and list them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import click

from config.settings import MarketSettings
from tasks.markets import queries
from tasks.markets.models import MARKET_STATES
from tasks.markets.payloads import PriceQuote, ResolveMarket
from tasks.markets.review_commands import COMMANDS, MARKET_ID
from tasks.markets.tasks import open_store, resolve
from taskyard import InvalidPayloadError
from taskyard.cli.kit.common_options import TimeParam, check_confirmed, destructive_options, json_option, page_options
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.recorded_changes import logged_change
from taskyard.cli.kit.tables import print_table
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.settings import current_settings

market_argument = click.argument("market_id", metavar="MARKET", type=MARKET_ID)


@click.group("markets")
def group() -> None:
    """Prediction markets: resolve, review, decide."""


@group.command("resolve", cls=OperatorCommand)
@market_argument
@click.option(
    "--outcome", required=True, metavar="OUTCOME", help="Winning outcome, exactly as stored; VOID refunds all."
)
@click.option("--ledger", type=click.IntRange(0), required=True, metavar="N", help="Block or ledger of the event.")
@click.option("--at", "event_at", type=TimeParam(), metavar="WHEN", help="Time of the event; default: now.")
@click.option(
    "--quote",
    "quotes",
    type=(str, str, TimeParam()),
    multiple=True,
    metavar="SOURCE PRICE WHEN",
    help="A price quote for the oracle guard; several times.",
)
@destructive_options(needs_reason=True)
@json_option
def resolve_command(  # noqa: PLR0913 - an option each
    *,
    market_id: str,
    outcome: str,
    ledger: int,
    event_at: datetime | None,
    quotes: tuple[tuple[str, str, datetime], ...],
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> None:
    """
    Enqueue the resolution of a market, as the indexer does.

    What the task would refuse is refused here, with the oracle guard's reason.
    """
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    payload = _payload(market_id, outcome, ledger, event_at or utc_now(), quotes)
    market = _find(market_id)
    guard = _check_resolvable(market, payload)
    facts: dict[str, Any] = {
        "market_id": market_id,
        "outcome": outcome,
        "confirmed": market.predictions["confirmed"],
        "guard": guard,
    }
    if dry_run:
        when = " when its dispute has ended" if market.state == "disputed" else ""
        _say(facts | {"dry_run": True}, f"would resolve {market_id} as {outcome}{when}; {guard}", as_json=as_json)
        return
    logged = {"market_id": market_id, "winning_outcome": outcome, "ledger": ledger}
    with logged_change("markets resolve", market_id, reason=reason, facts=logged):
        run = resolve.enqueue(payload)
    _say(facts | {"dry_run": False, "run_id": run.id}, f"{market_id} as {outcome}: run {run.id}", as_json=as_json)


@group.command("status", cls=OperatorCommand)
@click.argument("market_id", metavar="[MARKET]", type=MARKET_ID, required=False)
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


def _payload(
    market_id: str, outcome: str, ledger: int, event_at: datetime, quotes: tuple[tuple[str, str, datetime], ...]
) -> ResolveMarket:
    try:
        read = [PriceQuote(source=source, price=Decimal(price), observed_at=at) for source, price, at in quotes]
    except (ArithmeticError, ValueError) as error:
        raise click.UsageError("--quote: a source, a price above 0 and a time are needed") from error
    fields: dict[str, Any] = {"market_id": market_id, "winning_outcome": outcome, "ledger": ledger}
    try:
        return ResolveMarket.checked(**fields, timestamp=event_at, quotes=tuple(read))
    except InvalidPayloadError as error:
        raise click.UsageError(str(error)) from error


def _check_resolvable(market: queries.MarketDetails, payload: ResolveMarket) -> str:
    """Refuse what the task would refuse; return what the oracle guard says."""
    try:
        queries.check_resolvable(market, payload.winning_outcome)
    except ValueError as error:
        raise FailedError(str(error)) from error
    decision = open_store().ask_guard(payload)
    if not decision.is_accepted:
        raise FailedError(
            f"the oracle guard would refuse {market.id} as {payload.winning_outcome}: {decision.reason}; "
            "give fresh prices with --quote, or decide yourself: markets settle"
        )
    if not current_settings(MarketSettings).market_oracle_guard:
        return "the oracle guard is off"
    return f"the oracle guard accepts: {decision.reason}"


def _find(market_id: str) -> queries.MarketDetails:
    try:
        with open_session() as session:
            return queries.show_market(session, market_id)
    except queries.MarketNotFoundError as error:
        raise NotFoundError(str(error)) from error


def _say(facts: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        click.echo(line)


for command in COMMANDS:
    group.add_command(command)
