"""The chain side on a real EVM node: a pinned block, every page, and honesty about what could not be read."""

import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from tasks.reconciliation.chain.evm import POSITION_COUNT, POSITIONS, EvmChain, ExpectedChain
from tasks.reconciliation.chain.rpc import CallLimits, JsonRpc
from tasks.reconciliation.clients import ChainUnavailableError
from tests.reconciliation.anvil import CONTRACT, FOLDER, Anvil, npm_install
from tests.waiting import wait_for

ALICE = "0x" + "aa" * 20
BOB = "0x" + "0b" * 20


def chain_of(anvil: Anvil, contract: str, confirmations: int = 0, page_size: int = 2) -> EvmChain:
    rpc = JsonRpc(anvil.url, CallLimits(timedelta(seconds=20), tries=1))
    return EvmChain(rpc, contract, confirmations, page_size)


def test_all_pages_are_summed_by_owner_and_outcome(anvil: Anvil) -> None:
    contract = anvil.deploy()
    for owner, outcome, amount in [
        (ALICE, "yes", 2**64 + 1),
        (BOB, "no", 7),
        (ALICE, "yes", 2**200),  # two bets of one user are one position
        (ALICE, "ja::nein 'OR' 🎲", 3),
        (BOB, "", 4),
    ]:
        anvil.bet(contract, "m", owner, outcome, amount)
    anvil.bet(contract, "other", BOB, "yes", 1)
    chain = chain_of(anvil, contract)

    reading = chain.positions("m", chain.snapshot())

    assert reading.positions == {
        (ALICE, "yes"): 2**64 + 1 + 2**200,
        (BOB, "no"): 7,
        (ALICE, "ja::nein 'OR' 🎲"): 3,
        (BOB, ""): 4,
    }


def test_an_outcome_that_is_no_text_is_shown_as_its_bytes(anvil: Anvil) -> None:
    """PostgreSQL stores neither; a contract may hold both."""
    contract = anvil.deploy()
    anvil.bet(contract, "m", ALICE, b"a\x00b", 1)
    anvil.bet(contract, "m", ALICE, b"\xff\xfe", 2)
    chain = chain_of(anvil, contract)

    assert chain.positions("m", chain.snapshot()).positions == {
        (ALICE, "bytes:610062"): 1,
        (ALICE, "bytes:fffe"): 2,
    }


def test_a_market_without_positions_is_empty(anvil: Anvil) -> None:
    chain = chain_of(anvil, anvil.deploy())

    assert chain.positions("nobody bet here", chain.snapshot()).positions == {}


def test_what_happens_after_the_snapshot_is_not_read(anvil: Anvil) -> None:
    contract = anvil.deploy()
    anvil.bet(contract, "m", ALICE, "yes", 1)
    chain = chain_of(anvil, contract)
    at = chain.snapshot()

    anvil.bet(contract, "m", ALICE, "yes", 10)

    assert chain.positions("m", at).positions == {(ALICE, "yes"): 1}
    assert chain.positions("m", chain.snapshot()).positions == {(ALICE, "yes"): 11}


def test_the_snapshot_stays_behind_the_newest_block(own_anvil: Anvil) -> None:
    contract = own_anvil.deploy()
    own_anvil.call("anvil_mine", hex(10))
    newest = int(own_anvil.call("eth_blockNumber"), 16)

    at = chain_of(own_anvil, contract, confirmations=4).snapshot()

    assert (at.source, at.block) == ("evm", newest - 4)
    assert at.block_hash == own_anvil.block_hash(newest - 4)


def test_a_block_that_a_reorganisation_removed_is_an_error_and_not_another_state(own_anvil: Anvil) -> None:
    contract = own_anvil.deploy()
    own_anvil.bet(contract, "m", ALICE, "yes", 1)
    chain = chain_of(own_anvil, contract)
    at = chain.snapshot()

    own_anvil.call("anvil_reorg", 1, [])

    with pytest.raises(ChainUnavailableError):
        chain.positions("m", at)


def test_an_address_without_a_contract_is_not_an_empty_chain(anvil: Anvil) -> None:
    """Else a typing error in a setting would report every position as lost."""
    with pytest.raises(ChainUnavailableError, match="no contract"):
        chain_of(anvil, ALICE).snapshot()


def test_another_contract_is_not_an_empty_chain(anvil: Anvil) -> None:
    answers_nothing = anvil.deploy_code("6001600c60003960016000f300")  # its code is one byte: STOP
    chain = chain_of(anvil, answers_nothing)

    with pytest.raises(ChainUnavailableError, match="unreadable"):
        chain.positions("m", chain.snapshot())


def test_a_node_that_is_down_is_unavailable(own_anvil: Anvil) -> None:
    chain = chain_of(own_anvil, own_anvil.deploy())
    at = chain.snapshot()
    own_anvil.stop()

    for read in (chain.snapshot, lambda: chain.positions("m", at)):
        with pytest.raises(ChainUnavailableError):
            read()


def test_addresses_are_compared_in_lower_case(anvil: Anvil) -> None:
    chain = chain_of(anvil, ALICE)

    assert chain.normal_address("0X" + "Ab" * 20) == "0x" + "ab" * 20
    assert chain.normal_address("GABC") == "GABC"


def test_the_selectors_are_those_of_the_contract() -> None:
    selectors = CONTRACT["selectors"]

    assert POSITION_COUNT.hex() == selectors["positionCount(string)"]
    assert POSITIONS.hex() == selectors["positions(string,uint256,uint256)"]


def test_the_bytecode_is_what_the_compiler_makes_of_the_source() -> None:
    folder = npm_install("solc@0.8.37", FOLDER / "node_modules" / "solc" / "package.json").parent.parent
    script = Path(__file__).parent / "contract" / "compile.js"
    node = shutil.which("node")
    assert node is not None

    made = subprocess.run([node, script], env={"NODE_PATH": str(folder)}, capture_output=True, check=True, text=True)

    assert json.loads(made.stdout) == CONTRACT


def test_a_node_of_another_chain_is_not_read(anvil: Anvil) -> None:
    contract, own = anvil.deploy(), int(anvil.call("eth_chainId"), 16)
    rpc = JsonRpc(anvil.url, CallLimits(timedelta(seconds=20), tries=1))
    assert EvmChain(rpc, contract, 0, 2, ExpectedChain(chain_id=own)).snapshot().block > 0
    with pytest.raises(ChainUnavailableError, match=f"of chain {own}, not of 1 "):
        EvmChain(rpc, contract, 0, 2, ExpectedChain(chain_id=1)).snapshot()


def test_a_node_that_stands_still_is_stale(anvil: Anvil) -> None:
    """Its newest block only grows older; what it holds says nothing about the chain."""
    chain = EvmChain(
        JsonRpc(anvil.url, CallLimits(timedelta(seconds=20), tries=1)),
        anvil.deploy(),
        0,
        2,
        ExpectedChain(max_age=timedelta(seconds=1)),
    )

    def refusal() -> str | None:
        try:
            chain.snapshot()
        except ChainUnavailableError as error:
            return str(error)
        return None

    assert "stale" in str(wait_for(refusal, 20, "its block is older than a second"))
