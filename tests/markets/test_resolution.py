"""A resolution: one transaction that classifies each prediction once and pays to the unit."""

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from tasks.markets import handlers
from tasks.markets.models import Conflict, Market
from tasks.markets.store import Verdict
from taskyard.tasks.errors import PermanentError, Snooze
from tests.markets.world import World, resolved_event


def resolve(world: World, **event: Any) -> handlers.Resolved:
    return handlers.resolve(resolved_event(**event), world.markets(), world.settings)


def test_each_prediction_is_won_lost_or_rejected_and_paid(world: World) -> None:
    world.market(fee_bp=1000)
    won, lost = world.predict(("yes", 10), ("no", 40))
    pending, failed = world.predict(("yes", 99), state="pending") + world.predict(("no", 99), state="failed")

    done = resolve(world)

    rows = [world.prediction(each) for each in (won, lost, pending, failed)]
    assert [row.result for row in rows] == ["won", "lost", "rejected", "rejected"]
    assert [row.payout for row in rows] == [46, 0, None, None]  # 10 + 40 - 10 % of 40
    assert (done.state, done.kind, done.pool, done.fee) == ("resolved", "shared", "50", "4")
    assert (done.won, done.lost, done.refunded, done.rejected) == (1, 1, 0, 2)
    assert (world.get_market().state, world.get_market().winning_outcome) == ("resolved", "yes")


@pytest.mark.parametrize(("outcome", "kind"), [("VOID", "void"), ("maybe", "no_winner")])
def test_a_void_market_and_one_without_a_winner_refund_everybody(world: World, outcome: str, kind: str) -> None:
    world.market(fee_bp=1000)
    ids = world.predict(("yes", 2**70), ("no", 3))

    done = resolve(world, winning_outcome=outcome)

    assert (done.kind, done.refunded, done.fee) == (kind, 2, "0")
    assert world.results() == {"refunded": 2}
    assert world.payouts(ids) == [2**70, 3]


def test_a_market_without_predictions_is_resolved(world: World) -> None:
    world.market()

    assert resolve(world).kind == "no_winner"
    assert world.get_market().state == "resolved"


def test_other_markets_are_untouched(world: World) -> None:
    world.predict(("yes", 1), market_id=world.market("m"))
    world.predict(("yes", 1), market_id=world.market("other"))

    resolve(world)

    assert world.results("other") == {None: 1}
    assert world.get_market("other").state == "open"


def test_the_same_event_again_changes_nothing(world: World) -> None:
    world.subscriber("market.*")
    ids = world.predict(("yes", 1), ("no", 2), market_id=world.market())
    resolve(world)
    before = [world.prediction(each).model_dump() for each in ids]

    again = resolve(world)

    assert again.state == "already_resolved"
    assert [world.prediction(each).model_dump() for each in ids] == before
    assert len(world.events("market.resolved")) == len(world.deliveries("market.resolved")) == 1


def test_the_event_is_in_the_outbox_for_each_subscriber(world: World) -> None:
    """In the same transaction: there is no moment in which a crash would lose it."""
    subscribers = {world.subscriber("market.resolved"), world.subscriber("*")}
    world.subscriber("prediction.confirmed")
    world.predict(("yes", 2**65), ("no", 1), market_id=world.market())

    done = resolve(world)

    deliveries = world.deliveries("market.resolved")
    assert {delivery.endpoint_id for delivery in deliveries} == subscribers
    assert {delivery.event_id for delivery in deliveries} == {done.event_id}
    assert json.loads(world.body(deliveries[0]))["data"] == {
        "market_id": "m",
        "winning_outcome": "yes",
        "ledger": 42,
        "timestamp": "2026-03-01T12:00:00Z",
        "kind": "shared",
        "pool": str(2**65 + 1),
        "fee": "0",
        "paid": str(2**65 + 1),
    }


def test_another_outcome_for_a_resolved_market_is_a_conflict_and_an_alert(world: World) -> None:
    world.subscriber("market.resolution_conflict")
    world.predict(("yes", 1), ("no", 2), market_id=world.market())
    resolve(world)

    states = [resolve(world, winning_outcome="no").state for _ in range(2)]

    assert states == ["conflict", "conflict"]
    assert (world.get_market().winning_outcome, world.results()) == ("yes", {"won": 1, "lost": 1})
    with world.database.session() as session:
        conflict = session.scalars(select(Conflict)).one()
    assert (conflict.resolved_outcome, conflict.claimed_outcome, conflict.times_seen) == ("yes", "no", 2)
    assert len(world.deliveries("market.resolution_conflict")) == 1


def test_an_unknown_market_is_tried_again(world: World) -> None:
    """The indexer's event may be ahead of the market's row: any error but a permanent one means again."""
    with pytest.raises(handlers.UnknownMarketError) as raised:
        resolve(world)

    assert not isinstance(raised.value, PermanentError)


def test_an_outcome_that_the_market_does_not_have_is_for_a_person(world: World) -> None:
    """Else a typing error would refund everybody."""
    world.predict(("yes", 1), market_id=world.market(outcomes=["yes", "no"]))

    with pytest.raises(handlers.UnknownOutcomeError, match="has no outcome 'YES'"):
        resolve(world, winning_outcome="YES")

    assert world.results() == {None: 1}


def test_void_is_an_outcome_of_every_market(world: World) -> None:
    world.predict(("yes", 1), market_id=world.market(outcomes=["yes", "no"]))

    assert resolve(world, winning_outcome="VOID").kind == "void"


def test_a_disputed_market_waits_for_the_end_of_the_dispute(world: World) -> None:
    world.predict(("yes", 1), market_id=world.market(state="disputed"))
    with pytest.raises(Snooze) as raised:
        resolve(world)
    assert raised.value.delay == world.settings.market_dispute_recheck

    with world.database.session() as session, session.begin():
        session.execute(update(Market).where(col(Market.id) == "m").values(state="open"))

    assert resolve(world).state == "resolved"


def test_a_transaction_that_the_indexer_has_seen_is_in_the_pool(world: World) -> None:
    """The confirmer's next tick would have confirmed it: it is not rejected for coming between two ticks."""
    world.market()
    (late,) = world.predict(("yes", 5), state="pending", tx_hash="0xlate")
    world.seen("0xlate")

    resolve(world)

    assert (world.prediction(late).state, world.prediction(late).result) == ("confirmed", "won")
    assert len(world.events("prediction.confirmed")) == 1


def test_ten_identical_events_at_once_settle_ten_thousand_predictions_once(world: World) -> None:
    random = Random(4)  # noqa: S311 - a seeded sample
    world.subscriber("market.resolved")
    world.subscriber("market.*")
    world.market(fee_bp=137)
    bets = [(random.choice(["yes", "no", "maybe"]), random.randrange(1, 10**20)) for _ in range(10_000)]
    world.predict(*bets)
    world.predict(("yes", 5), ("no", 5), state="pending")

    def once(_: int) -> Verdict:
        return world.markets().resolve(resolved_event())

    with ThreadPoolExecutor(10) as pool:
        verdicts = list(pool.map(once, range(10)))

    assert sorted(verdict.state for verdict in verdicts) == ["already_resolved"] * 9 + ["resolved"]
    winners = sum(outcome == "yes" for outcome, _ in bets)
    assert world.results() == {"won": winners, "lost": 10_000 - winners, "rejected": 2}
    resolution = world.resolution()
    assert resolution is not None
    assert world.paid() + resolution.fee == resolution.pool == sum(amount for _, amount in bets)
    deliveries = world.deliveries("market.resolved")
    assert len(deliveries) == 2
    assert {delivery.event_id for delivery in deliveries} == {resolution.event_id}
