"""The confirmer: predictions follow their transactions, each is announced once."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col

from tasks.markets import handlers
from tasks.markets.models import Prediction
from taskyard.database.columns import utc_now
from tests.databases import Database
from tests.markets.world import World, resolved_event

AGO = utc_now() - timedelta(hours=2)


def confirm(world: World) -> handlers.Confirmed:
    return handlers.confirm(world.confirmations())


def make_due(world: World, prediction_id: UUID) -> None:
    with world.database.session() as session, session.begin():
        session.execute(update(Prediction).where(col(Prediction.id) == prediction_id).values(next_look_at=AGO))


def test_a_prediction_whose_transaction_was_seen_is_confirmed_and_announced(world: World) -> None:
    world.subscriber("prediction.*")
    world.market()
    (row_id,) = world.predict(("yes", 2**64 + 1), state="pending", tx_hash="0xaa")
    world.seen("0xaa", ledger=77)

    done = confirm(world)

    row = world.prediction(row_id)
    assert (row.state, row.ledger, done.confirmed) == ("confirmed", 77, 1)
    assert row.confirmed_at is not None
    (delivery,) = world.deliveries("prediction.confirmed")
    assert json.loads(world.body(delivery))["data"] == {
        "prediction_id": str(row_id),
        "market_id": "m",
        "outcome": "yes",
        "amount": str(2**64 + 1),
        "tx_hash": "0xaa",
        "ledger": 77,
    }


def test_a_second_tick_announces_nothing_again(world: World) -> None:
    world.market()
    world.predict(("yes", 1), state="pending", tx_hash="0xaa")
    world.seen("0xaa")

    confirm(world)
    again = confirm(world)

    assert again == handlers.Confirmed(confirmed=0, rejected=0, waiting=0, failed=0)
    assert len(world.events("prediction.confirmed")) == 1


def test_ticks_at_the_same_moment_announce_each_prediction_once(world: World) -> None:
    world.market()
    hashes = [f"0x{number:04x}" for number in range(60)]
    for tx_hash in hashes:
        world.predict(("yes", 1), state="pending", tx_hash=tx_hash)
    world.seen(*hashes)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: confirm(world), range(4)))

    assert sum(tick.confirmed for tick in done) == 60
    assert len(world.events("prediction.confirmed")) == 60


def test_a_transaction_that_is_never_seen_fails_its_prediction_after_the_last_look(database: Database) -> None:
    world = World(database, market_confirm_attempts=3, market_confirm_backoff="30")
    world.market()
    (row_id,) = world.predict(("yes", 1), state="pending", next_look_at=AGO)

    waits = []
    for _ in range(2):
        before = utc_now()
        assert confirm(world).waiting == 1
        waits.append((world.prediction(row_id).next_look_at - before).total_seconds())
        make_due(world, row_id)
    last = confirm(world)

    assert [30 <= waits[0] < 45, 60 <= waits[1] < 75] == [True, True]
    assert (last.failed, world.prediction(row_id).state, world.prediction(row_id).looks) == (1, "failed", 3)
    assert "not seen" in (world.prediction(row_id).last_error or "")


def test_a_look_comes_only_when_it_is_due(world: World) -> None:
    world.market()
    (row_id,) = world.predict(("yes", 1), state="pending", next_look_at=utc_now() + timedelta(minutes=5))

    assert confirm(world).waiting == 0
    assert world.prediction(row_id).looks == 0


def test_a_failed_prediction_is_confirmed_when_its_transaction_turns_up_late(world: World) -> None:
    """The money is on the chain: an indexer that was behind must not cost the user the bet."""
    world.market()
    (row_id,) = world.predict(("yes", 1), state="failed", tx_hash="0xlate")
    world.seen("0xlate")

    confirm(world)

    assert (world.prediction(row_id).state, world.prediction(row_id).last_error) == ("confirmed", None)


def test_a_prediction_on_a_resolved_market_is_rejected(world: World) -> None:
    """It came in after the market was settled, so it was never in the pool."""
    world.market()
    world.markets().resolve(resolved_event())
    seen, unseen = world.predict(("yes", 1), state="pending", tx_hash="0xaa") + world.predict(
        ("yes", 1), state="pending", next_look_at=AGO
    )
    world.seen("0xaa")

    done = confirm(world)

    assert done.rejected == 2
    assert [world.prediction(each).result for each in (seen, unseen)] == ["rejected", "rejected"]
    assert world.events("prediction.confirmed") == []


def test_more_predictions_than_one_batch_are_all_looked_at(world: World) -> None:
    world.market()
    world.predict(*[("yes", 1)] * (handlers.CONFIRM_BATCH + 20), state="pending", next_look_at=AGO)

    assert confirm(world).waiting == handlers.CONFIRM_BATCH + 20
