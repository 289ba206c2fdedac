"""The oracle guard: may a market be resolved on these price quotes? Pure, and closed on failure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from statistics import median

from config.settings import MarketSettings
from tasks.markets.payloads import PriceQuote

FULL = 10_000  # basis points


@dataclass(frozen=True, slots=True)
class OracleRules:
    """What the guard asks for."""

    sources: int  # fresh ones, each counted once
    max_age: timedelta  # of a quote, at the event
    skew: timedelta  # by which a clock may run ahead
    deviation_bp: int  # from the median, in 1/10000
    fallback: str | None  # a source that suffices alone when there are too few

    @classmethod
    def of(cls, settings: MarketSettings) -> "OracleRules":
        """Read the rules from the settings."""
        return cls(
            sources=settings.market_oracle_sources,
            max_age=settings.market_oracle_max_age,
            skew=settings.market_oracle_skew,
            deviation_bp=settings.market_oracle_deviation_bp,
            fallback=settings.market_oracle_fallback,
        )


@dataclass(frozen=True, slots=True)
class OracleDecision:
    """Whether the guard lets an event through, and why."""

    is_accepted: bool
    reason: str
    used_fallback: bool = False


def judge(quotes: Sequence[PriceQuote], event_at: datetime, now: datetime, rules: OracleRules) -> OracleDecision:
    """
    Decide on the quotes of one event.

    Freshness is measured at the event, not at the present: an event that waited an hour for the database gets the
    same answer as one that did not. Sources that contradict each other refuse the event; the fallback does not help
    then, it only stands in for sources that are missing.
    """
    if event_at > now + rules.skew:
        return OracleDecision(is_accepted=False, reason=f"the event is dated {event_at - now} in the future")
    prices = _usable(quotes, event_at, rules)
    if len(prices) >= rules.sources:
        return _agreement(prices, rules)
    missing = f"{len(prices)} fresh sources of {rules.sources}"
    if rules.fallback is None:
        return OracleDecision(is_accepted=False, reason=missing)
    if rules.fallback not in prices:
        return OracleDecision(
            is_accepted=False, reason=f"{missing}, and no fresh quote of the fallback {rules.fallback}"
        )
    agreement = _agreement(prices, rules)
    if not agreement.is_accepted:
        return agreement
    return OracleDecision(is_accepted=True, reason=f"{missing}; fallback {rules.fallback}", used_fallback=True)


def _usable(quotes: Iterable[PriceQuote], event_at: datetime, rules: OracleRules) -> dict[str, Fraction]:
    """Return each source's newest fresh price; a source that names two prices for one moment does not count."""
    newest: dict[str, PriceQuote] = {}
    contradicting: set[str] = set()
    for quote in quotes:
        is_fresh = event_at - rules.max_age <= quote.observed_at <= event_at + rules.skew
        if not is_fresh or not quote.price.is_finite() or quote.price <= 0:
            continue
        known = newest.get(quote.source)
        if known and known.observed_at == quote.observed_at and known.price != quote.price:
            contradicting.add(quote.source)
        if known is None or known.observed_at < quote.observed_at:
            newest[quote.source] = quote
            contradicting.discard(quote.source)
    return {source: Fraction(quote.price) for source, quote in newest.items() if source not in contradicting}


def _agreement(prices: dict[str, Fraction], rules: OracleRules) -> OracleDecision:
    middle: Fraction = median(prices.values())
    source, price = max(prices.items(), key=lambda item: abs(item[1] - middle))
    deviation = abs(price - middle) * FULL / middle
    if deviation > rules.deviation_bp:
        return OracleDecision(
            is_accepted=False,
            reason=f"{source} is {float(deviation):.1f} bp from the median, at most {rules.deviation_bp} may be",
        )
    return OracleDecision(is_accepted=True, reason=f"{len(prices)} sources within {rules.deviation_bp} bp")
