"""The chain side on a Soroban contract: storage entries through JSON-RPC, all of one market from one ledger."""

import time
from collections import Counter
from datetime import timedelta
from itertools import batched
from typing import Any

from tasks.reconciliation.chain.rpc import JsonRpc
from tasks.reconciliation.chain.storable_text import storable_text
from tasks.reconciliation.chain.xdr import ScVal, XdrError, data_key, entry_value
from tasks.reconciliation.clients import ChainSnapshot, ChainUnavailableError, MarketReading
from tasks.reconciliation.comparison import PositionKey

MOST_KEYS = 200  # that a node takes in one call
MOST_PAGES = 100_000  # of one market; more is a contract that talks nonsense
READ_TRIES = 3  # when the contract writes while its pages are read


class MarketChangedError(ChainUnavailableError):
    """The market was changed between two calls."""


class SorobanChain:
    """
    Reads ``Pages(market)`` and ``Positions(market, page)`` from the contract's persistent storage.

    A node answers for its newest ledger only. One call is one ledger; when a market's pages take several calls, each
    later entry must be unchanged since the first call's ledger, else the market is read again.

    Source: Stellar RPC, ``getHealth`` and ``getLedgerEntries``.
    """

    def __init__(self, rpc: JsonRpc, contract: str, max_age: timedelta | None = None) -> None:
        """Prepare; `max_age` is of the node's newest ledger, None: any."""
        self._rpc, self._contract, self._max_age = rpc, contract, max_age

    def snapshot(self) -> ChainSnapshot:
        """Return the newest ledger, if it is young enough and the contract is there."""
        self._check_health()
        instance = data_key(self._contract, ScVal("instance"))
        at, entries = self._entries([instance])
        if instance not in entries:
            raise ChainUnavailableError(f"there is no contract {self._contract} in ledger {at.block}")
        return at

    def positions(self, market_id: str, at: ChainSnapshot) -> MarketReading:
        """Read all positions; the reading's ledger is that of its first call, at or after the snapshot's."""
        for number in range(1, READ_TRIES + 1):
            try:
                return self._read(market_id, at)
            except MarketChangedError:
                if number == READ_TRIES:
                    raise
            except XdrError as error:
                raise ChainUnavailableError(f"the storage of {market_id!r} is unreadable: {error}") from error
        raise AssertionError("there is at least one try")

    def normal_address(self, address: str) -> str:
        """Return it as it is: there is one way to write it."""
        return address

    def _check_health(self) -> None:
        """
        Refuse a node that is stale.

        Nodes before Stellar RPC 23 do not say when their newest ledger was closed; what they say is whether it is
        recent, with an error if it is not.
        """
        if self._max_age is None:
            return
        health = self._rpc.call("getHealth", None)
        closed_at = health.get("latestLedgerCloseTime") if isinstance(health, dict) else None
        if closed_at is None:
            if not isinstance(health, dict) or health.get("status") != "healthy":
                raise ChainUnavailableError("the node does not say that it is healthy")
            return
        try:
            age = timedelta(seconds=time.time() - int(closed_at))
        except (OverflowError, TypeError, ValueError) as error:
            raise ChainUnavailableError(f"the node answered {str(closed_at)[:80]!r} instead of a time") from error
        if age > self._max_age:
            shown = timedelta(seconds=round(age.total_seconds()))
            raise ChainUnavailableError(f"the node is stale: its newest ledger is {shown} old (CHAIN_MAX_AGE)")

    def _read(self, market_id: str, at: ChainSnapshot) -> MarketReading:
        market = ScVal("string", market_id.encode())
        index = data_key(self._contract, ScVal("vec", [ScVal("symbol", "Pages"), market]))
        first, entries = self._entries([index])
        if first.block < at.block:
            raise ChainUnavailableError(f"the node fell back from ledger {at.block} to {first.block}")
        pages = _expect(entry_value(entries[index]["xdr"]), "u32") if index in entries else 0
        if pages > MOST_PAGES:
            raise XdrError(f"{pages} pages are not plausible")
        keys = [
            data_key(self._contract, ScVal("vec", [ScVal("symbol", "Positions"), market, ScVal("u32", page)]))
            for page in range(pages)
        ]
        sums: Counter[PositionKey] = Counter()
        for batch in batched(keys, MOST_KEYS - 1, strict=False):
            _, found = self._entries([index, *batch])  # the index again: pages may have been added
            if any(found[key]["lastModifiedLedgerSeq"] > first.block for key in found) or len(found) != len(batch) + 1:
                raise MarketChangedError(f"{market_id!r} was changed while it was read")
            for key in batch:
                sums.update(_page(entry_value(found[key]["xdr"])))
        return MarketReading(first, dict(sums))

    def _entries(self, keys: list[str]) -> tuple[ChainSnapshot, dict[str, dict[str, Any]]]:
        """Return the entries that exist, by key, and the ledger they are of."""
        answer = self._rpc.call("getLedgerEntries", {"keys": keys})
        try:
            ledger = int(answer["latestLedger"])
            entries = {
                entry["key"]: {"xdr": entry["xdr"], "lastModifiedLedgerSeq": int(entry["lastModifiedLedgerSeq"])}
                for entry in answer["entries"] or ()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ChainUnavailableError("the node's answer about storage entries has another form") from error
        return ChainSnapshot("soroban", ledger, ""), entries


def _page(value: ScVal) -> Counter[PositionKey]:
    """Sum one page: a list of records with owner, outcome and amount."""
    page: Counter[PositionKey] = Counter()
    for record in _expect(value, "vec"):
        fields = {_expect(key, "symbol"): item for key, item in _expect(record, "map")}
        missing = {"owner", "outcome", "amount"} - fields.keys()
        if missing:
            raise XdrError(f"a position has no {', '.join(sorted(missing))}")
        key = (_expect(fields["owner"], "address"), storable_text(_expect(fields["outcome"], "string")))
        page[key] += _expect(fields["amount"], "i128")
    return page


def _expect(value: ScVal, kind: str) -> Any:
    if value.kind != kind:
        raise XdrError(f"{value.kind} where {kind} belongs")
    return value.value
