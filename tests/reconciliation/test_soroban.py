"""The chain side on a Soroban-like node: one ledger for all pages of a market, or an error."""

from datetime import timedelta
from typing import Any

import pytest

from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from tasks.reconciliation.chain.rpc import CallLimits, JsonRpc
from tasks.reconciliation.chain.soroban import SorobanChain
from tasks.reconciliation.chain.strkeys import encode_address
from tasks.reconciliation.clients import ChainSnapshot, ChainUnavailableError


class Overtaken(JsonRpc):
    """A client whose market changes after each of its first calls for several entries."""

    def __init__(self, node: StandinNode, changes: int) -> None:
        super().__init__(node.url, CallLimits(timedelta(seconds=10), tries=1))
        self._node, self._changes = node, changes

    def call(self, method: str, params: Any) -> Any:
        if method == "getLedgerEntries" and len(params["keys"]) > 1 and self._changes:
            self._changes -= 1
            self._node.put("m", [(account(1), "yes", 100 + self._changes)] * 3, page_size=1)
        return super().call(method, params)


def chain_of(node: StandinNode, contract: str = CONTRACT) -> SorobanChain:
    return SorobanChain(JsonRpc(node.url, CallLimits(timedelta(seconds=10), tries=1)), contract)


def test_all_pages_are_summed_by_owner_and_outcome(node: StandinNode) -> None:
    node.put("m", [(account(1), "yes", 2**100), (account(2), "no", 3), (account(1), "yes", 1)], page_size=1)
    node.put("other", [(account(2), "no", 9)])
    chain = chain_of(node)

    reading = chain.positions("m", chain.snapshot())

    assert reading.positions == {(account(1), "yes"): 2**100 + 1, (account(2), "no"): 3}
    assert reading.at == ChainSnapshot("soroban", node.ledger, "")


def test_more_pages_than_one_call_takes_are_read(node: StandinNode) -> None:
    node.put("m", [(account(number), "yes", number) for number in range(1, 502)], page_size=1)
    chain = chain_of(node)

    assert len(chain.positions("m", chain.snapshot()).positions) == 501


def test_odd_outcomes_survive(node: StandinNode) -> None:
    odd = ["ja::nein", "", " yes", "YES", "🎲", "a'); DROP TABLE"]
    node.put("m", [(account(1), outcome, 1) for outcome in odd] + [(account(1), b"\x00", 1)])
    chain = chain_of(node)

    positions = chain.positions("m", chain.snapshot()).positions

    assert {outcome for _, outcome in positions} == {*odd, "bytes:00"}


def test_a_market_without_positions_is_empty(node: StandinNode) -> None:
    chain = chain_of(node)

    assert chain.positions("m", chain.snapshot()).positions == {}


def test_a_contract_that_is_not_there_is_not_an_empty_chain(node: StandinNode) -> None:
    with pytest.raises(ChainUnavailableError, match="no contract"):
        chain_of(node, encode_address(bytes(32), is_contract=True)).snapshot()


def test_a_market_that_changes_while_it_is_read_is_read_again(node: StandinNode) -> None:
    """No reading mixes two ledgers."""
    node.put("m", [(account(1), "yes", 1)] * 3, page_size=1)

    reading = SorobanChain(Overtaken(node, changes=1), CONTRACT).positions("m", ChainSnapshot("soroban", 1, ""))

    assert reading.positions == {(account(1), "yes"): 300}


def test_a_market_that_never_stands_still_is_unavailable(node: StandinNode) -> None:
    node.put("m", [(account(1), "yes", 1)] * 3, page_size=1)

    with pytest.raises(ChainUnavailableError, match="changed while it was read"):
        SorobanChain(Overtaken(node, changes=99), CONTRACT).positions("m", ChainSnapshot("soroban", 1, ""))


def test_a_node_that_is_behind_the_snapshot_is_unavailable(node: StandinNode) -> None:
    """Behind one address there may be several nodes, and one may lag."""
    with pytest.raises(ChainUnavailableError, match="fell back"):
        chain_of(node).positions("m", ChainSnapshot("soroban", node.ledger + 5, ""))


def test_an_error_of_the_node_is_unavailable(node: StandinNode) -> None:
    node.fail("m")
    chain = chain_of(node)

    with pytest.raises(ChainUnavailableError, match="storage is not readable"):
        chain.positions("m", chain.snapshot())


def dated(node: StandinNode) -> SorobanChain:
    limits = CallLimits(timedelta(seconds=10), tries=1)
    return SorobanChain(JsonRpc(node.url, limits), CONTRACT, max_age=timedelta(minutes=5))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"result": {"status": "healthy", "latestLedgerCloseTime": "1700000000"}}, "the node is stale"),
        ({"result": {"status": "healthy", "latestLedgerCloseTime": "yesterday"}}, "'yesterday' instead of a time"),
        ({"result": {"status": "asleep"}}, "does not say that it is healthy"),
        ({"result": None}, "does not say that it is healthy"),
        ({"error": {"code": -32603, "message": "latency since last known ledger closed is too high"}}, "latency"),
    ],
)
def test_a_node_that_stands_still_is_stale(node: StandinNode, answer: dict[str, Any], said: str) -> None:
    """Its newest ledger only grows older; what it holds says nothing about the network."""
    node.report_health(**answer)

    with pytest.raises(ChainUnavailableError, match=said):
        dated(node).snapshot()


def test_an_old_node_that_says_only_that_it_is_healthy_is_read(node: StandinNode) -> None:
    node.report_health(result={"status": "healthy"})

    assert dated(node).snapshot().block == node.ledger
