"""A stage for flows on each kind of database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_broker import using_servers
from tests.databases import Database
from tests.flows.flow_stage import FlowStage, environment
from tests.servers import Server


@pytest.fixture
def stage(database: Database, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowStage]:
    """A stage without workers; this process has its environment."""
    env = environment(valkey, database, tmp_path)
    with using_servers(env, monkeypatch):
        made = FlowStage(valkey, database, tmp_path, env)
        yield made
        made.stop()
