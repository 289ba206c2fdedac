"""The manifest of markets: all that the platform needs to know of this folder."""

from pathlib import Path

from config.queues import MARKET_RESOLUTION
from config.settings import MarketSettings
from taskyard import CommandGroup, Domain, Tables

MARKETS_DOMAIN = Domain(
    "markets",
    tasks=("tasks.markets.tasks",),
    queues=(MARKET_RESOLUTION,),
    settings=MarketSettings,
    timetable="tasks.markets.timetable:entries",
    gauges="tasks.markets.metrics:figures",
    commands=(CommandGroup("markets", "tasks.markets.cli", "Prediction markets: resolve, review, decide."),),
    tables=Tables("tasks.markets.models", Path(__file__).parent / "migrations"),
)
