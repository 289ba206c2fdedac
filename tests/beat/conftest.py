"""Servers, databases and beat processes for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.beat.stage import Stage
from tests.databases import Database, database, servers
from tests.servers import Server

__all__ = ["database", "servers"]


@pytest.fixture
def stage(valkey: Server, database: Database, tmp_path: Path) -> Iterator[Stage]:
    """A broker, a database of each kind in turn, and the means to start processes on them; ended with the test."""
    with Stage(valkey, database, tmp_path) as made:
        yield made
