"""A resolution: one transaction that classifies each prediction once and pays to the unit."""

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from tasks.markets import handlers
from tasks.markets.models import Market, ResolutionConflict
from tasks.markets.store import ResolutionVerdict
from taskyard.tasks.errors import PermanentError, Snooze
from tests.markets.market_rows import MarketRows, resolved_event


def resolve(market_rows: MarketRows, **event: Any) -> handlers.ResolveResult:
    return handlers.resolve(resolved_event(**event), market_rows.markets(), market_rows.settings)


def test_each_prediction_is_won_lost_or_rejected_and_paid(market_rows: MarketRows) -> None:
    market_rows.market(fee_bp=1000)
    won, lost = market_rows.predict(("yes", 10), ("no", 40))
    pending, failed = market_rows.predict(("yes", 99), state="pending") + market_rows.predict(
        ("no", 99), state="failed"
    )

    done = resolve(market_rows)

    rows = [market_rows.prediction(each) for each in (won, lost, pending, failed)]
    assert [row.result for row in rows] == ["won", "lost", "rejected", "rejected"]
    assert [row.payout for row in rows] == [46, 0, None, None]  # 10 + 40 - 10 % of 40
    assert (done.state, done.kind, done.pool, done.fee) == ("resolved", "shared", "50", "4")
    assert (done.won, done.lost, done.refunded, done.rejected) == (1, 1, 0, 2)
    assert (market_rows.get_market().state, market_rows.get_market().winning_outcome) == ("resolved", "yes")


@pytest.mark.parametrize(("outcome", "kind"), [("VOID", "void"), ("maybe", "no_winner")])
def test_a_void_market_and_one_without_a_winner_refund_everybody(
    market_rows: MarketRows, outcome: str, kind: str
) -> None:
    market_rows.market(fee_bp=1000)
    ids = market_rows.predict(("yes", 2**70), ("no", 3))

    done = resolve(market_rows, winning_outcome=outcome)

    assert (done.kind, done.refunded, done.fee) == (kind, 2, "0")
    assert market_rows.results() == {"refunded": 2}
    assert market_rows.payouts(ids) == [2**70, 3]


def test_a_market_without_predictions_is_resolved(market_rows: MarketRows) -> None:
    market_rows.market()

    assert resolve(market_rows).kind == "no_winner"
    assert market_rows.get_market().state == "resolved"


def test_other_markets_are_untouched(market_rows: MarketRows) -> None:
    market_rows.predict(("yes", 1), market_id=market_rows.market("m"))
    market_rows.predict(("yes", 1), market_id=market_rows.market("other"))

    resolve(market_rows)

    assert market_rows.results("other") == {None: 1}
    assert market_rows.get_market("other").state == "open"


def test_the_same_event_again_changes_nothing(market_rows: MarketRows) -> None:
    market_rows.subscriber("market.*")
    ids = market_rows.predict(("yes", 1), ("no", 2), market_id=market_rows.market())
    resolve(market_rows)
    before = [market_rows.prediction(each).model_dump() for each in ids]

    again = resolve(market_rows)

    assert again.state == "already_resolved"
    assert [market_rows.prediction(each).model_dump() for each in ids] == before
    assert len(market_rows.events("market.resolved")) == len(market_rows.deliveries("market.resolved")) == 1


def test_the_event_is_in_the_outbox_for_each_subscriber(market_rows: MarketRows) -> None:
    """In the same transaction: there is no moment in which a crash would lose it."""
    subscribers = {market_rows.subscriber("market.resolved"), market_rows.subscriber("*")}
    market_rows.subscriber("prediction.confirmed")
    market_rows.predict(("yes", 2**65), ("no", 1), market_id=market_rows.market())

    done = resolve(market_rows)

    deliveries = market_rows.deliveries("market.resolved")
    assert {delivery.endpoint_id for delivery in deliveries} == subscribers
    assert {delivery.event_id for delivery in deliveries} == {done.event_id}
    assert json.loads(market_rows.body(deliveries[0]))["data"] == {
        "market_id": "m",
        "winning_outcome": "yes",
        "ledger": 42,
        "timestamp": "2026-03-01T12:00:00Z",
        "kind": "shared",
        "pool": str(2**65 + 1),
        "fee": "0",
        "paid": str(2**65 + 1),
    }


def test_another_outcome_for_a_resolved_market_is_a_conflict_and_an_alert(market_rows: MarketRows) -> None:
    market_rows.subscriber("market.resolution_conflict")
    market_rows.predict(("yes", 1), ("no", 2), market_id=market_rows.market())
    resolve(market_rows)

    states = [resolve(market_rows, winning_outcome="no").state for _ in range(2)]

    assert states == ["conflict", "conflict"]
    assert (market_rows.get_market().winning_outcome, market_rows.results()) == ("yes", {"won": 1, "lost": 1})
    with market_rows.database.session() as session:
        conflict = session.scalars(select(ResolutionConflict)).one()
    assert (conflict.resolved_outcome, conflict.claimed_outcome, conflict.times_seen) == ("yes", "no", 2)
    assert len(market_rows.deliveries("market.resolution_conflict")) == 1


def test_an_unknown_market_is_tried_again(market_rows: MarketRows) -> None:
    """The indexer's event may be ahead of the market's row: any error but a permanent one means again."""
    with pytest.raises(handlers.UnknownMarketError) as raised:
        resolve(market_rows)

    assert not isinstance(raised.value, PermanentError)


def test_an_outcome_that_the_market_does_not_have_is_for_a_person(market_rows: MarketRows) -> None:
    """Else a typing error would refund everybody."""
    market_rows.predict(("yes", 1), market_id=market_rows.market(outcomes=["yes", "no"]))

    with pytest.raises(handlers.UnknownOutcomeError, match="has no outcome 'YES'"):
        resolve(market_rows, winning_outcome="YES")

    assert market_rows.results() == {None: 1}


def test_void_is_an_outcome_of_every_market(market_rows: MarketRows) -> None:
    market_rows.predict(("yes", 1), market_id=market_rows.market(outcomes=["yes", "no"]))

    assert resolve(market_rows, winning_outcome="VOID").kind == "void"


def test_a_disputed_market_waits_for_the_end_of_the_dispute(market_rows: MarketRows) -> None:
    market_rows.predict(("yes", 1), market_id=market_rows.market(state="disputed"))
    with pytest.raises(Snooze) as raised:
        resolve(market_rows)
    assert raised.value.delay == market_rows.settings.market_dispute_recheck

    with market_rows.database.session() as session, session.begin():
        session.execute(update(Market).where(col(Market.id) == "m").values(state="open"))

    assert resolve(market_rows).state == "resolved"


def test_a_transaction_that_the_indexer_has_seen_is_in_the_pool(market_rows: MarketRows) -> None:
    """The confirmer's next tick would have confirmed it: it is not rejected for coming between two ticks."""
    market_rows.market()
    (late,) = market_rows.predict(("yes", 5), state="pending", tx_hash="0xlate")
    market_rows.seen("0xlate")

    resolve(market_rows)

    assert (market_rows.prediction(late).state, market_rows.prediction(late).result) == ("confirmed", "won")
    assert len(market_rows.events("prediction.confirmed")) == 1


def test_ten_identical_events_at_once_settle_ten_thousand_predictions_once(market_rows: MarketRows) -> None:
    random = Random(4)  # noqa: S311 - a seeded sample
    market_rows.subscriber("market.resolved")
    market_rows.subscriber("market.*")
    market_rows.market(fee_bp=137)
    bets = [(random.choice(["yes", "no", "maybe"]), random.randrange(1, 10**20)) for _ in range(10_000)]
    market_rows.predict(*bets)
    market_rows.predict(("yes", 5), ("no", 5), state="pending")

    def once(_: int) -> ResolutionVerdict:
        return market_rows.markets().resolve(resolved_event())

    with ThreadPoolExecutor(10) as pool:
        verdicts = list(pool.map(once, range(10)))

    assert sorted(verdict.state for verdict in verdicts) == ["already_resolved"] * 9 + ["resolved"]
    winners = sum(outcome == "yes" for outcome, _ in bets)
    assert market_rows.results() == {"won": winners, "lost": 10_000 - winners, "rejected": 2}
    resolution = market_rows.resolution()
    assert resolution is not None
    assert market_rows.paid() + resolution.fee == resolution.pool == sum(amount for _, amount in bets)
    deliveries = market_rows.deliveries("market.resolved")
    assert len(deliveries) == 2
    assert {delivery.event_id for delivery in deliveries} == {resolution.event_id}
