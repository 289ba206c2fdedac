"""
A chain node of our own for demos and tests: a contract's storage behind Stellar's JSON-RPC, on loopback.

>>> with StandinNode() as node:
...     node.put("m", [(account(1), "yes", 5)])
...     node.url.startswith("http://127.0.0.1:")
True
"""

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import batched
from typing import Any, ClassVar, Self

from tasks.reconciliation.chain.strkeys import encode_address
from tasks.reconciliation.chain.xdr import ScVal, data_entry, data_key

CONTRACT = encode_address(b"taskyard stand-in contract".ljust(32, b"\0"), is_contract=True)
PAGE_SIZE = 100  # positions in one entry
HOLD_LIMIT = 60  # seconds


def account(number: int) -> str:
    """Return the address of an account; the same number gives the same address."""
    return encode_address(number.to_bytes(32), is_contract=False)


class StandinNode:
    """One node with one contract; a context manager. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()
        self._ledger = 1
        self._entries: dict[str, tuple[str, int]] = {}  # key -> entry, ledger of its last change
        self._failing: set[str] = set()
        self._held: dict[str, threading.Event] = {}
        self._health: dict[str, Any] | None = None  # None: healthy, and closing ledgers
        self._store(data_key(CONTRACT, ScVal("instance")), ScVal("u32", 0), ScVal("u32", 0))
        handler = type("Handler", (_Handler,), {"node": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def ledger(self) -> int:
        """The newest ledger; every change closes one."""
        return self._ledger

    def put(
        self, market_id: str, positions: Sequence[tuple[str, str | bytes, int]], page_size: int = PAGE_SIZE
    ) -> None:
        """Replace the positions of a market, given as (owner, outcome, amount)."""
        pages = list(batched(positions, page_size, strict=False))
        with self._lock:
            self._ledger += 1
            self._store(_pages_key(market_id), ScVal("u32", 0), ScVal("u32", len(pages)))
            for number, page in enumerate(pages):
                self._store(
                    _page_key(market_id, number), ScVal("u32", 0), ScVal("vec", [_position(*row) for row in page])
                )

    def fail(self, market_id: str) -> None:
        """Answer with an error whenever this market is asked for."""
        self._failing.add(_pages_key(market_id))

    def report_health(self, **answer: Any) -> None:
        """Answer so when it is asked for its health: a `result` or an `error`."""
        self._health = answer

    def hold(self, market_id: str) -> threading.Event:
        """Answer nothing about this market until the returned event is set."""
        return self._held.setdefault(_pages_key(market_id), threading.Event())

    def answer(self, method: str, params: Any) -> dict[str, Any]:
        """Return the result or the error of one call."""
        self.calls += 1
        if method == "getHealth":
            return self._health or {"result": {"status": "healthy", "latestLedgerCloseTime": str(int(time.time()))}}
        if method != "getLedgerEntries":
            return {"error": {"code": -32601, "message": f"method {method} not found"}}
        keys = params["keys"]
        if self._failing.intersection(keys):
            return {"error": {"code": -32603, "message": "storage is not readable"}}
        for key in self._held.keys() & set(keys):
            self._held[key].wait(HOLD_LIMIT)
        with self._lock:
            entries = [
                {"key": key, "xdr": self._entries[key][0], "lastModifiedLedgerSeq": self._entries[key][1]}
                for key in keys
                if key in self._entries
            ]
            return {"result": {"entries": entries, "latestLedger": self._ledger}}

    def stop(self) -> None:
        """Stop to listen: the node is down."""
        for event in self._held.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()

    def _store(self, key: str, name: ScVal, value: ScVal) -> None:
        self._entries[key] = (data_entry(CONTRACT, name, value), self._ledger)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    node: ClassVar[StandinNode]

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"jsonrpc": "2.0", "id": call["id"], **self.node.answer(call["method"], call.get("params"))}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a demo's output is its own."""


def _pages_key(market_id: str) -> str:
    return data_key(CONTRACT, ScVal("vec", [ScVal("symbol", "Pages"), ScVal("string", market_id.encode())]))


def _page_key(market_id: str, page: int) -> str:
    market = ScVal("string", market_id.encode())
    return data_key(CONTRACT, ScVal("vec", [ScVal("symbol", "Positions"), market, ScVal("u32", page)]))


def _position(owner: str, outcome: str | bytes, amount: int) -> ScVal:
    text = outcome.encode() if isinstance(outcome, str) else outcome
    fields = (("amount", ScVal("i128", amount)), ("outcome", ScVal("string", text)), ("owner", ScVal("address", owner)))
    return ScVal("map", [(ScVal("symbol", name), value) for name, value in fields])
