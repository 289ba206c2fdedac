"""Resolutions by real workers: late markets, lost workers, wrong events, and the webhooks that arrive."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlmodel import Session, col

from scripts.standins.receiver import Receiver
from tasks.markets.models import MarketResolution, Prediction
from tasks.markets.tasks import resolve
from taskyard.history.models import DeadLetter
from taskyard.settings.loading import current_settings
from taskyard.tasks.errors import InvalidPayloadError
from taskyard.webhooks.delivery import endpoints
from tests.markets.market_platform import MarketPlatform
from tests.markets.market_rows import EVENT_AT, MarketRows
from tests.waiting import stays_true, wait_for

LIMIT = 60  # seconds; on a busy machine the start of a worker alone may take some
EVENT = {"market_id": "m", "winning_outcome": "yes", "ledger": 42, "timestamp": EVENT_AT.isoformat()}


@pytest.fixture
def market_rows(platform: MarketPlatform) -> MarketRows:
    return MarketRows(platform.database)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def subscribe(platform: MarketPlatform, receiver: Receiver, *patterns: str) -> None:
    with platform.session() as session, session.begin():
        endpoints.register(session, current_settings(), receiver.url, patterns, endpoints.EndpointOptions())


def resolutions(platform: MarketPlatform) -> int:
    return platform.count(MarketResolution)


def test_an_event_resolves_its_market_and_the_subscribers_hear_of_it(
    platform: MarketPlatform, market_rows: MarketRows, receiver: Receiver
) -> None:
    subscribe(platform, receiver, "market.resolved")
    market_rows.predict(("yes", 10), ("no", 30), market_id=market_rows.market())
    platform.worker()

    resolve.delay(market_id="m", winning_outcome="yes", ledger=42, timestamp=EVENT_AT)

    (request,) = receiver.wait_for(1, timeout=LIMIT)
    assert json.loads(request.body)["data"]["pool"] == "40"
    assert market_rows.results() == {"won": 1, "lost": 1}
    resolution = market_rows.resolution()
    assert resolution is not None
    assert request.webhook_id == resolution.event_id


def test_an_event_before_its_market_exists_resolves_it_later(platform: MarketPlatform, market_rows: MarketRows) -> None:
    worker = platform.worker()
    platform.send("markets.resolve", EVENT)
    wait_for(lambda: "no market 'm'" in worker.log.read_text(), LIMIT, "the first attempt found no market")

    market_rows.predict(("yes", 10), market_id=market_rows.market())

    wait_for(lambda: resolutions(platform), LIMIT, "the market is resolved by a later attempt")
    assert platform.dead_letters() == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_event_whose_market_never_comes_is_a_dead_letter(platform: MarketPlatform) -> None:
    platform.worker()

    platform.send("markets.resolve", EVENT, max_attempts=1)

    wait_for(platform.dead_letters, LIMIT, "the dead letter is written")
    (letter,) = platform.dead_letters()
    assert (letter.task, letter.reason, letter.error_type) == ("markets.resolve", "exhausted", "UnknownMarketError")


def test_ten_identical_events_make_one_resolution_and_one_message_per_subscriber(
    platform: MarketPlatform, market_rows: MarketRows, receiver: Receiver
) -> None:
    subscribe(platform, receiver, "market.resolved")
    subscribe(platform, receiver, "market.*")
    market_rows.predict(*[("yes", 3), ("no", 4)] * 50, market_id=market_rows.market())

    for _ in range(10):
        platform.send("markets.resolve", EVENT)
    for number in range(2):
        platform.worker(f"worker{number}")

    receiver.wait_for(2, timeout=LIMIT)
    wait_for(platform.is_idle, LIMIT, "all ten events are handled")
    stays_true(lambda: len(receiver.requests) == 2, 0.5, "no third message")
    assert len({request.webhook_id for request in receiver.requests}) == 1
    assert (resolutions(platform), market_rows.results(), market_rows.paid()) == (1, {"won": 50, "lost": 50}, 350)


def test_a_worker_killed_in_the_middle_of_a_resolution_leaves_each_prediction_classified_once(
    platform: MarketPlatform, market_rows: MarketRows, receiver: Receiver
) -> None:
    subscribe(platform, receiver, "market.resolved")
    market_rows.market(fee_bp=55)
    ids = market_rows.predict(*[("yes", 7), ("no", 10**19 + 1)] * 5_000)
    first = platform.worker("first")

    with _in_the_middle(platform, ids[-2]) as is_reached:
        platform.send("markets.resolve", EVENT)
        wait_for(is_reached, LIMIT, "the resolution is under way")
        first.kill()
    assert platform.database.kind == "sqlite" or (resolutions(platform), market_rows.results()) == (0, {None: 10_000})
    platform.worker("second")

    wait_for(lambda: resolutions(platform), LIMIT, "another worker resolves the market")
    receiver.wait_for(1, timeout=LIMIT)
    resolution = market_rows.resolution()
    assert resolution is not None
    assert market_rows.results() == {"won": 5_000, "lost": 5_000}
    assert market_rows.paid() + resolution.fee == resolution.pool == 5_000 * (7 + 10**19 + 1)
    assert {request.webhook_id for request in receiver.requests} == {resolution.event_id}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"market_id": ""}, "market_id"),
        ({"market_id": " m"}, "market_id"),
        ({"market_id": None}, "market_id"),
        ({"winning_outcome": ""}, "winning_outcome"),
        ({"winning_outcome": "a\x00b"}, "winning_outcome"),
        ({"ledger": -1}, "ledger"),
        ({"ledger": "42"}, "ledger"),
        ({"timestamp": "2026-03-01T12:00:00"}, "timestamp"),  # no time zone
        ({"quotes": [{"source": "a", "price": "NaN", "observed_at": EVENT_AT.isoformat()}]}, "quotes.0.price"),
        ({"quotes": [{"source": "a", "price": "0", "observed_at": EVENT_AT.isoformat()}]}, "quotes.0.price"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_event_is_refused_at_the_caller(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidPayloadError, match=named):
        resolve.apply_async(kwargs={**EVENT, **change})


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_wrong_event_of_another_program_is_a_dead_letter_at_once(
    platform: MarketPlatform, market_rows: MarketRows
) -> None:
    market_rows.predict(("yes", 1), market_id=market_rows.market())
    platform.worker()

    resolve.app.send_task("markets.resolve", kwargs={"market_id": "m"}, queue="market-resolution", ignore_result=True)  # type: ignore[attr-defined]  # a Celery task

    wait_for(platform.dead_letters, LIMIT, "the dead letter is written")
    with platform.session() as session:
        letter = session.scalars(select(DeadLetter)).one()
    assert (letter.reason, letter.attempt) == ("invalid_payload", 1)
    assert market_rows.results() == {None: 1}


class _in_the_middle:  # noqa: N801 - used as a statement
    """
    Hold the resolution in the middle of its transaction, and tell when it is there.

    PostgreSQL: a lock on one prediction stops the statement that writes the winners. SQLite has no such lock: there
    the resolution is under way once its log file grows, and it is killed wherever it happens to be.
    """

    def __init__(self, platform: MarketPlatform, prediction_id: UUID) -> None:
        self._platform, self._id = platform, prediction_id
        self._session: Session | None = None

    def __enter__(self) -> Any:
        if self._platform.database.kind == "sqlite":
            log = self._platform.database.engine.url.database + "-wal"  # type: ignore[operator]  # a file has a name
            with self._platform.session() as session:
                session.connection().exec_driver_sql("SELECT 1")
            start = _size(log)
            return lambda: _size(log) != start
        self._session = self._platform.session()
        self._session.execute(select(Prediction).where(col(Prediction.id) == self._id).with_for_update())
        return self._is_blocked

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._session.close()

    def _is_blocked(self) -> bool:
        with self._platform.session() as session:
            waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return bool(session.scalar(waiting))


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0
