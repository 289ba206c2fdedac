"""The market tasks: one line of work each, and the dependencies of their handlers."""

from datetime import timedelta
from functools import lru_cache

from config.queues import MARKET_RESOLUTION
from config.settings import MarketSettings
from tasks.markets import handlers
from tasks.markets.confirmations import ConfirmationStore
from tasks.markets.payloads import ConfirmPredictions, ResolveMarket
from tasks.markets.store import MarketStore
from taskyard import Exponential, Policy, emit, task
from taskyard.database.engine import open_session
from taskyard.settings import MAINTENANCE, current_settings

# 2 + 4 + ... + 512 s: an indexer that is 17 minutes behind loses no resolution; then a person is asked.
RESOLUTION = Policy(max_attempts=10, backoff=Exponential(base=timedelta(seconds=2), cap=timedelta(minutes=10)))
CONFIRMATION = Policy(max_attempts=1)  # the next one comes on schedule


@task("markets.resolve", ResolveMarket, queue=MARKET_RESOLUTION, policy=RESOLUTION)
def resolve(payload: ResolveMarket) -> handlers.ResolveResult:
    """Settle a market; see :func:`tasks.markets.handlers.resolve`."""
    return handlers.resolve(payload, open_store(), current_settings(MarketSettings))


@task("markets.confirm", ConfirmPredictions, queue=MAINTENANCE, policy=CONFIRMATION)
def confirm(_payload: ConfirmPredictions) -> handlers.ConfirmResult:
    """Confirm predictions; see :func:`tasks.markets.handlers.confirm`."""
    return handlers.confirm(ConfirmationStore(open_session, current_settings(MarketSettings), emit))


@lru_cache(maxsize=1)
def open_store() -> MarketStore:
    """Return the store on this process's database."""
    return MarketStore(open_session, current_settings(MarketSettings), emit)
