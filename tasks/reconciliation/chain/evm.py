"""The chain side on an EVM contract: every market of a run is read at one pinned block."""

import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tasks.reconciliation.chain.abi import AbiArrays, AbiError, decode_number, encode_arguments
from tasks.reconciliation.chain.rpc import JsonRpc
from tasks.reconciliation.chain.storable_text import storable_text
from tasks.reconciliation.clients import ChainSnapshot, ChainUnavailableError, MarketReading
from tasks.reconciliation.comparison import PositionKey

# First four bytes of the Keccak-256 of these signatures; the contract's part is in docs/reconciliation.md.
POSITION_COUNT = bytes.fromhex("6df41a47")  # positionCount(string)
POSITIONS = bytes.fromhex("5a2dc20c")  # positions(string,uint256,uint256)

ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
MOST_POSITIONS = 10_000_000  # of one market; more is a contract that talks nonsense


@dataclass(frozen=True, slots=True)
class ExpectedChain:
    """What a node must show before anything is read from it."""

    chain_id: int | None = None  # None: any
    max_age: timedelta | None = None  # of the newest block; None: any


class EvmChain:
    """
    Reads a contract through JSON-RPC.

    Calls name the block by its hash, so a block that a reorganisation removed is an error and not another state.

    Source: EIP-1898 (block by hash), EIP-1474 (methods).
    """

    def __init__(
        self,
        rpc: JsonRpc,
        contract: str,
        confirmations: int,
        page_size: int,
        expected: ExpectedChain = ExpectedChain(),
    ) -> None:
        """Prepare; `confirmations` are blocks behind the newest, `page_size` counts positions of one call."""
        self._expected = expected
        self._rpc, self._contract = rpc, contract
        self._confirmations, self._page_size = confirmations, page_size

    def snapshot(self) -> ChainSnapshot:
        """Return the block that is the configured confirmations behind the newest, if the contract is in it."""
        wanted = max(0, self._newest_block() - self._confirmations)
        block = self._rpc.call("eth_getBlockByNumber", [hex(wanted), False])
        if not isinstance(block, dict) or not isinstance(block.get("hash"), str):
            raise ChainUnavailableError(f"the node has no block {wanted}")
        at = ChainSnapshot("evm", wanted, block["hash"])
        if self._rpc.call("eth_getCode", [self._contract, _by_hash(at)]) in {"0x", None}:
            raise ChainUnavailableError(f"there is no contract at {self._contract} in block {wanted}")
        return at

    def _newest_block(self) -> int:
        """Return the newest block's number, if the node is of the right chain and not stale."""
        wanted = self._expected.chain_id
        if wanted is not None and (found := _number(self._rpc.call("eth_chainId", []))) != wanted:
            raise ChainUnavailableError(f"the node is of chain {found}, not of {wanted} (CHAIN_ID)")
        block = self._rpc.call("eth_getBlockByNumber", ["latest", False])
        if not isinstance(block, dict):
            raise ChainUnavailableError("the node has no newest block")
        age = timedelta(seconds=time.time() - _number(block.get("timestamp")))
        if self._expected.max_age is not None and age > self._expected.max_age:
            shown = timedelta(seconds=round(age.total_seconds()))
            raise ChainUnavailableError(f"the node is stale: its newest block is {shown} old (CHAIN_MAX_AGE)")
        return _number(block.get("number"))

    def positions(self, market_id: str, at: ChainSnapshot) -> MarketReading:
        """Read all positions page by page; several of one owner on one outcome are one sum."""
        try:
            count = self._count(market_id, at)
            sums: Counter[PositionKey] = Counter()
            for start in range(0, count, self._page_size):
                sums.update(self._page(market_id, start, min(self._page_size, count - start), at))
        except AbiError as error:
            raise ChainUnavailableError(f"the contract's answer about {market_id!r} is unreadable: {error}") from error
        return MarketReading(at, dict(sums))

    def normal_address(self, address: str) -> str:
        """Write it in lower case: the letters' case is only a checksum (EIP-55)."""
        return address.lower() if ADDRESS.fullmatch(address) else address

    def _count(self, market_id: str, at: ChainSnapshot) -> int:
        count = decode_number(self._call(POSITION_COUNT + encode_arguments(market_id), at))
        if count > MOST_POSITIONS:
            raise AbiError(f"{count} positions are not plausible")
        return count

    def _page(self, market_id: str, start: int, count: int, at: ChainSnapshot) -> Counter[PositionKey]:
        arrays = AbiArrays(self._call(POSITIONS + encode_arguments(market_id, start, count), at))
        owners, outcomes, amounts = arrays.addresses(0), arrays.texts(1), arrays.numbers(2)
        if not len(owners) == len(outcomes) == len(amounts) == count:
            raise AbiError(
                f"a page of {count} has {len(owners)} owners, {len(outcomes)} outcomes, {len(amounts)} amounts"
            )
        page: Counter[PositionKey] = Counter()
        for owner, outcome, amount in zip(owners, outcomes, amounts, strict=True):
            page[owner, storable_text(outcome)] += amount
        return page

    def _call(self, data: bytes, at: ChainSnapshot) -> bytes:
        call = {"to": self._contract, "data": f"0x{data.hex()}"}
        return _bytes(self._rpc.call("eth_call", [call, _by_hash(at)]))


def _by_hash(at: ChainSnapshot) -> dict[str, Any]:
    return {"blockHash": at.block_hash, "requireCanonical": True}


def _number(value: Any) -> int:
    try:
        return int(value, 16)
    except (TypeError, ValueError) as error:
        raise ChainUnavailableError(f"the node answered {str(value)[:80]!r} instead of a number") from error


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, ValueError) as error:
        raise ChainUnavailableError(f"the node answered {str(value)[:80]!r} instead of bytes") from error
