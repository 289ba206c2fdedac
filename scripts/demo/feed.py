"""The events of the demo: an hour of a small prediction market, the same at every run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

TYPES = ("market.created", "market.order_matched", "market.price_moved", "market.resolved")
QUESTIONS = (
    "Will the rover reach the crater rim before March?",
    "Will the city open the new tram line this year?",
    "Will the home team win the spring final?",
    "Will the harvest exceed the five-year mean?",
    "Will the bridge carry traffic by midsummer?",
)
OPENING = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
CENT = Decimal("0.01")


class Event(NamedTuple):
    """One event as an app would emit it."""

    type: str
    data: dict[str, Any]  # amounts are text, so that no receiver rounds them


def market_feed(count: int, seed: int = 7) -> Iterator[Event]:
    """Yield ``count`` events (more than twice the markets): markets open, trade, move, and resolve at the end."""
    random = Random(seed)  # noqa: S311 - sample data, guards nothing
    markets = [f"mkt-{number:03d}" for number in range(1, len(QUESTIONS) + 1)]
    prices = dict.fromkeys(markets, Decimal("0.50"))
    for number in range(count):
        at = (OPENING + timedelta(seconds=17 * number)).isoformat()
        if number < len(markets):
            facts = {"market_id": markets[number], "question": QUESTIONS[number], "closes_at": "2026-12-31T23:59:00Z"}
            yield Event("market.created", facts | {"at": at})
        elif number >= count - len(markets):
            market = markets[count - number - 1]
            outcome = "yes" if prices[market] >= Decimal("0.50") else "no"
            yield Event("market.resolved", {"market_id": market, "outcome": outcome, "at": at})
        else:
            yield _trade(random, random.choice(markets), prices, number, at)


def _trade(random: Random, market: str, prices: dict[str, Decimal], number: int, at: str) -> Event:
    before = prices[market]
    prices[market] = min(max(before + random.randint(-4, 4) * CENT, CENT), 1 - CENT)
    facts = {"market_id": market, "outcome": "yes", "price": str(prices[market]), "at": at}
    if random.random() < 0.4:  # noqa: PLR2004 - two of five
        return Event("market.price_moved", facts | {"previous": str(before)})
    size = Decimal(random.randint(100, 50_000)) * CENT
    return Event("market.order_matched", facts | {"trade_id": f"trd-{number:05d}", "size": str(size)})
