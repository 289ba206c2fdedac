"""The oracle guard: which quotes let a market be resolved."""

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select

from tasks.markets.models import OracleRefusal
from tasks.markets.oracle_guard import OracleRules, judge
from tasks.markets.payloads import PriceQuote
from tests.databases import Database
from tests.markets.market_rows import EVENT_AT, MarketRows, resolved_event

RULES = OracleRules(
    sources=3, max_age=timedelta(minutes=5), skew=timedelta(seconds=30), deviation_bp=100, fallback=None
)
WITH_FALLBACK = OracleRules(
    sources=3, max_age=timedelta(minutes=5), skew=timedelta(seconds=30), deviation_bp=100, fallback="chainlink"
)


def quote(source: str, price: str = "100", age_seconds: float = 10) -> PriceQuote:
    return PriceQuote(source=source, price=Decimal(price), observed_at=EVENT_AT - timedelta(seconds=age_seconds))


def three(*more: PriceQuote) -> list[PriceQuote]:
    return [quote("a"), quote("b"), quote("c"), *more]


@pytest.mark.parametrize(
    "quotes",
    [
        three(),
        [quote("a", "100"), quote("b", "100"), quote("c", "101")],  # exactly 100 bp
        [quote("a", "100"), quote("b", "100"), quote("c", "99")],
        three(quote("d", "100", age_seconds=301)),  # a stale fourth does not count, and does not hurt
        three(quote("d", "500", age_seconds=-31)),  # nor one from the future
        [quote("a", age_seconds=300), quote("b", age_seconds=-30), quote("c")],  # just fresh
        three(quote("c", "250", age_seconds=60)),  # of one source, the newest counts
    ],
)
def test_three_fresh_sources_that_agree_are_accepted(quotes: list[PriceQuote]) -> None:
    decision = judge(quotes, EVENT_AT, EVENT_AT, RULES)

    assert (decision.is_accepted, decision.used_fallback) == (True, False)


@pytest.mark.parametrize(
    ("quotes", "reason"),
    [
        ([], "0 fresh sources of 3"),
        ([quote("a"), quote("b")], "2 fresh sources of 3"),
        ([quote("a"), quote("b"), quote("b", age_seconds=20)], "2 fresh sources of 3"),  # one source twice
        ([quote("a"), quote("b"), quote("c", age_seconds=301)], "2 fresh sources of 3"),  # stale
        ([quote("a"), quote("b"), quote("c", age_seconds=-31)], "2 fresh sources of 3"),  # its clock is ahead
        ([quote("a"), quote("b"), quote("c"), quote("c", "101")], "2 fresh sources of 3"),  # two prices at one moment
        ([quote("a", "100"), quote("b", "100"), quote("c", "101.01")], "c is 101.0 bp from the median"),
        ([quote("a", "100"), quote("b", "100"), quote("c", "98.99")], "c is 101.0 bp from the median"),
    ],
)
def test_quotes_that_are_too_few_or_disagree_are_refused(quotes: list[PriceQuote], reason: str) -> None:
    decision = judge(quotes, EVENT_AT, EVENT_AT, RULES)

    assert not decision.is_accepted
    assert reason in decision.reason


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-1", "0"])
def test_a_price_without_meaning_does_not_count(price: str) -> None:
    """The payload refuses it already; the guard does not rely on that."""
    broken = quote("c").model_copy(update={"price": Decimal(price)})

    assert not judge([quote("a"), quote("b"), broken], EVENT_AT, EVENT_AT, RULES).is_accepted


def test_an_event_dated_in_the_future_is_refused() -> None:
    now = EVENT_AT - timedelta(seconds=31)

    assert "in the future" in judge(three(), EVENT_AT, now, RULES).reason


def test_an_event_that_waited_is_judged_as_when_it_was_new() -> None:
    now = EVENT_AT + timedelta(days=3)

    assert judge(three(), EVENT_AT, now, RULES).is_accepted


@pytest.mark.parametrize(
    ("quotes", "is_accepted"),
    [
        ([quote("chainlink")], True),
        ([quote("chainlink"), quote("a")], True),
        ([quote("chainlink"), quote("a", "150")], False),  # it stands in for who is missing, not against who disagrees
        ([quote("chainlink", age_seconds=301)], False),
        ([quote("a"), quote("b")], False),  # another source is no fallback
        ([quote("chainlink"), quote("a"), quote("b", "150")], False),
    ],
)
def test_the_named_fallback_suffices_only_when_others_are_missing(quotes: list[PriceQuote], is_accepted: bool) -> None:  # noqa: FBT001 - a column of the table
    decision = judge(quotes, EVENT_AT, EVENT_AT, WITH_FALLBACK)

    assert (decision.is_accepted, decision.used_fallback) == (is_accepted, is_accepted)


def test_the_fallback_is_not_asked_while_there_are_enough_sources() -> None:
    decision = judge(three(quote("chainlink")), EVENT_AT, EVENT_AT, WITH_FALLBACK)

    assert (decision.is_accepted, decision.used_fallback) == (True, False)


def test_a_refused_event_changes_nothing_but_leaves_its_reason(database: Database) -> None:
    market_rows = MarketRows(database, market_oracle_guard=True)
    market_rows.predict(("yes", 5), ("no", 5), market_id=market_rows.market())

    verdicts = [market_rows.markets().resolve(resolved_event(quotes=(quote("a"),))) for _ in range(2)]

    assert [verdict.state for verdict in verdicts] == ["refused", "refused"]
    assert (market_rows.get_market().state, market_rows.results()) == ("open", {None: 2})
    assert market_rows.events("market.resolved") == []
    with database.session() as session:
        refusal = session.scalars(select(OracleRefusal)).one()
    assert (refusal.reason, refusal.times_seen) == ("1 fresh sources of 3", 2)


def test_an_accepted_event_records_that_it_needed_the_fallback(database: Database) -> None:
    market_rows = MarketRows(database, market_oracle_guard=True, market_oracle_fallback="chainlink")
    market_rows.predict(("yes", 5), market_id=market_rows.market())

    market_rows.markets().resolve(resolved_event(quotes=(quote("chainlink"),)))

    resolution = market_rows.resolution()
    assert resolution is not None
    assert resolution.oracle_fallback


def test_a_resolved_market_is_not_judged_again(database: Database) -> None:
    """A replay without quotes is still the same event, not a refusal."""
    market_rows = MarketRows(database, market_oracle_guard=True)
    market_rows.predict(("yes", 5), market_id=market_rows.market())
    market_rows.markets().resolve(resolved_event(quotes=tuple(three())))

    assert market_rows.markets().resolve(resolved_event()).state == "already_resolved"
