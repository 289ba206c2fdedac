"""The confirmer: predictions follow their transactions, each is announced once."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col

from tasks.markets import handlers
from tasks.markets.models import Prediction
from taskyard.database.columns import utc_now
from tests.databases import Database
from tests.markets.market_rows import MarketRows, resolved_event

AGO = datetime(2026, 1, 1, tzinfo=UTC)


def confirm(market_rows: MarketRows) -> handlers.ConfirmResult:
    return handlers.confirm(market_rows.confirmations())


def make_due(market_rows: MarketRows, prediction_id: UUID) -> None:
    with market_rows.database.session() as session, session.begin():
        session.execute(update(Prediction).where(col(Prediction.id) == prediction_id).values(next_look_at=AGO))


def test_a_prediction_whose_transaction_was_seen_is_confirmed_and_announced(market_rows: MarketRows) -> None:
    market_rows.subscriber("prediction.*")
    market_rows.market()
    (row_id,) = market_rows.predict(("yes", 2**64 + 1), state="pending", tx_hash="0xaa")
    market_rows.seen("0xaa", ledger=77)

    done = confirm(market_rows)

    row = market_rows.prediction(row_id)
    assert (row.state, row.ledger, done.confirmed) == ("confirmed", 77, 1)
    assert row.confirmed_at is not None
    (delivery,) = market_rows.deliveries("prediction.confirmed")
    assert json.loads(market_rows.body(delivery))["data"] == {
        "prediction_id": str(row_id),
        "market_id": "m",
        "outcome": "yes",
        "amount": str(2**64 + 1),
        "tx_hash": "0xaa",
        "ledger": 77,
    }


def test_a_second_tick_announces_nothing_again(market_rows: MarketRows) -> None:
    market_rows.market()
    market_rows.predict(("yes", 1), state="pending", tx_hash="0xaa")
    market_rows.seen("0xaa")

    confirm(market_rows)
    again = confirm(market_rows)

    assert again == handlers.ConfirmResult(confirmed=0, rejected=0, waiting=0, failed=0)
    assert len(market_rows.events("prediction.confirmed")) == 1


def test_ticks_at_the_same_moment_announce_each_prediction_once(market_rows: MarketRows) -> None:
    market_rows.market()
    hashes = [f"0x{number:04x}" for number in range(60)]
    for tx_hash in hashes:
        market_rows.predict(("yes", 1), state="pending", tx_hash=tx_hash)
    market_rows.seen(*hashes)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: confirm(market_rows), range(4)))

    assert sum(tick.confirmed for tick in done) == 60
    assert len(market_rows.events("prediction.confirmed")) == 60


def test_a_transaction_that_is_never_seen_fails_its_prediction_after_the_last_look(database: Database) -> None:
    market_rows = MarketRows(database, market_confirm_attempts=3, market_confirm_backoff="30")
    market_rows.market()
    (row_id,) = market_rows.predict(("yes", 1), state="pending", next_look_at=AGO)

    waits = []
    for _ in range(2):
        before = utc_now()
        assert confirm(market_rows).waiting == 1
        waits.append((market_rows.prediction(row_id).next_look_at - before).total_seconds())
        make_due(market_rows, row_id)
    last = confirm(market_rows)

    assert [30 <= waits[0] < 45, 60 <= waits[1] < 75] == [True, True]
    assert (last.failed, market_rows.prediction(row_id).state, market_rows.prediction(row_id).looks) == (1, "failed", 3)
    assert "not seen" in (market_rows.prediction(row_id).last_error or "")


def test_a_look_comes_only_when_it_is_due(market_rows: MarketRows) -> None:
    market_rows.market()
    (row_id,) = market_rows.predict(("yes", 1), state="pending", next_look_at=utc_now() + timedelta(minutes=5))

    assert confirm(market_rows).waiting == 0
    assert market_rows.prediction(row_id).looks == 0


def test_a_failed_prediction_is_confirmed_when_its_transaction_turns_up_late(market_rows: MarketRows) -> None:
    """The money is on the chain: an indexer that was behind must not cost the user the bet."""
    market_rows.market()
    (row_id,) = market_rows.predict(("yes", 1), state="failed", tx_hash="0xlate")
    market_rows.seen("0xlate")

    confirm(market_rows)

    assert (market_rows.prediction(row_id).state, market_rows.prediction(row_id).last_error) == ("confirmed", None)


def test_a_prediction_on_a_resolved_market_is_rejected(market_rows: MarketRows) -> None:
    """It came in after the market was settled, so it was never in the pool."""
    market_rows.market()
    market_rows.markets().resolve(resolved_event())
    seen, unseen = market_rows.predict(("yes", 1), state="pending", tx_hash="0xaa") + market_rows.predict(
        ("yes", 1), state="pending", next_look_at=AGO
    )
    market_rows.seen("0xaa")

    done = confirm(market_rows)

    assert done.rejected == 2
    assert [market_rows.prediction(each).result for each in (seen, unseen)] == ["rejected", "rejected"]
    assert market_rows.events("prediction.confirmed") == []


def test_more_predictions_than_one_batch_are_all_looked_at(market_rows: MarketRows) -> None:
    market_rows.market()
    market_rows.predict(*[("yes", 1)] * (handlers.CONFIRM_BATCH + 20), state="pending", next_look_at=AGO)

    assert confirm(market_rows).waiting == handlers.CONFIRM_BATCH + 20
