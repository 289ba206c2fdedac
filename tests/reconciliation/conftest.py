"""Databases and platforms for the tests of this folder, and chain nodes: a real anvil, and a stand-in for Soroban."""

from collections.abc import Iterator

import pytest

from scripts.standins.soroban_node import CONTRACT, StandinNode
from tests.databases import Database
from tests.markets.conftest import platform
from tests.markets.market_rows import MarketRows
from tests.reconciliation.anvil import Anvil, anvil_binary
from tests.reconciliation.reconciler import Reconciler

__all__ = ["platform"]


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
def reconciler(database: Database, node: StandinNode) -> Reconciler:
    """Reconciles the markets of an empty database of each kind in turn with the stand-in."""
    settings = {"chain_provider": "soroban", "chain_rpc_url": node.url, "chain_contract": CONTRACT, "chain_tries": 1}
    return Reconciler(MarketRows(database), **settings)
