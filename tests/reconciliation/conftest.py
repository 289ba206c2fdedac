"""Databases and platforms for the tests of this folder, and chain nodes: a real anvil, and a stand-in for Soroban."""

from collections.abc import Iterator

import pytest

from scripts.standins.soroban_node import CONTRACT, StandinNode
from tests.databases import Database, database, empty_database, servers
from tests.markets.conftest import platform
from tests.markets.world import World
from tests.reconciliation.anvil import Anvil, anvil_binary
from tests.reconciliation.desk import Desk

__all__ = ["database", "empty_database", "platform", "servers"]


@pytest.fixture(scope="session")
def anvil_of_this_process() -> Iterator[Anvil]:
    """One chain per test process; each test deploys a contract of its own."""
    with Anvil(anvil_binary()) as anvil:
        yield anvil


@pytest.fixture
def anvil(anvil_of_this_process: Anvil) -> Anvil:
    """A chain that other tests use too."""
    return anvil_of_this_process


@pytest.fixture
def own_anvil() -> Iterator[Anvil]:
    """A chain of this test alone, to stop or to reorganise."""
    with Anvil(anvil_binary()) as anvil:
        yield anvil


@pytest.fixture
def node() -> Iterator[StandinNode]:
    """A Soroban-like node."""
    with StandinNode() as node:
        yield node


@pytest.fixture
def desk(database: Database, node: StandinNode) -> Desk:
    """A desk that reconciles the markets of an empty world with the stand-in, in each kind of database in turn."""
    settings = {"chain_provider": "soroban", "chain_rpc_url": node.url, "chain_contract": CONTRACT, "chain_tries": 1}
    return Desk(World(database, **settings))
