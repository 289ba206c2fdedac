"""Databases for the tests of this folder, and a small world of users, markets and predictions in them."""

import pytest

from tests.databases import Database, database, empty_database, servers
from tests.markets.world import World

__all__ = ["database", "empty_database", "servers"]


@pytest.fixture
def world(database: Database) -> World:
    """An empty world in each kind of database in turn."""
    return World(database)
