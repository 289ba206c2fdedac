"""A real EVM node for tests: anvil, installed through npm once per checkout, with a contract that holds positions."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from tasks.reconciliation.chain.abi import WORD, encode_arguments
from tasks.reconciliation.chain.rpc import CallLimits, JsonRpc
from tests.waiting import wait_for
from tests.workers import ROOT

VERSION = "1.7.1"
PACKAGE = "@foundry-rs/anvil-linux-amd64"
FOLDER = ROOT / ".run" / "anvil"
START_LIMIT = 60  # seconds
CONTRACT = json.loads((Path(__file__).parent / "contract" / "Positions.json").read_text())


class Anvil:
    """One chain on a free port, mining a block per transaction; a context manager."""

    def __init__(self, binary: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._command = [str(binary), "--silent", "--port", str(self.port), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        self._rpc = JsonRpc(self.url, CallLimits(tries=1))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, START_LIMIT, "anvil answers")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; its chain is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def call(self, method: str, *params: Any) -> Any:
        """Call any method of the node."""
        return self._rpc.call(method, list(params))

    def block_hash(self, number: int) -> str:
        """Return the hash of a block."""
        details = False
        return str(self.call("eth_getBlockByNumber", hex(number), details)["hash"])

    def deploy(self) -> str:
        """Deploy the contract; return its address."""
        return self.deploy_code(CONTRACT["bytecode"])

    def deploy_code(self, code: str) -> str:
        """Deploy any code, given in hexadecimal digits; return its address."""
        return str(self._send(None, code)["contractAddress"])

    def bet(self, contract: str, market: str, owner: str, outcome: str | bytes, amount: int) -> None:
        """Add a position; an outcome may be bytes that are no UTF-8."""
        data = _bet_arguments(market, owner, outcome.encode() if isinstance(outcome, str) else outcome, amount)
        self._send(contract, CONTRACT["selectors"]["bet(string,address,string,uint256)"] + data.hex())

    def _send(self, to: str | None, data: str) -> dict[str, Any]:
        sender = self.call("eth_accounts")[0]
        transaction = {"from": sender, "data": f"0x{data}", "gas": hex(10_000_000), **({"to": to} if to else {})}
        sent = self.call("eth_sendTransaction", transaction)
        receipt: dict[str, Any] = wait_for(lambda: self.call("eth_getTransactionReceipt", sent), 20, "it is mined")
        assert receipt["status"] == "0x1", receipt
        return receipt

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "anvil ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def anvil_binary() -> Path:
    """Return anvil's binary, installed at the first call."""
    return npm_install(f"{PACKAGE}@{VERSION}", FOLDER / "node_modules" / PACKAGE / "bin" / "anvil")


def npm_install(package: str, wanted: Path) -> Path:
    """
    Install a package of npm if the wanted file of it is not there; return the file.

    A laptop without npm skips the test; continuous integration (CI=true) must have it and fails.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of a test run share the folder
        if wanted.exists():
            return wanted
        if shutil.which("npm") is None:
            _missing(f"npm is not installed, and {package} comes from it")
        flags = ["--no-audit", "--no-fund", "--silent", "--prefix", str(FOLDER)]
        done = subprocess.run(["npm", "install", *flags, package], capture_output=True, check=False)
        if done.returncode or not wanted.exists():
            _missing(f"npm could not install {package}")
    return wanted


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _bet_arguments(market: str, owner: str, outcome: bytes, amount: int) -> bytes:
    """As :func:`encode_arguments`, with an outcome of any bytes."""
    filler = "x" * len(outcome)
    encoded = bytearray(encode_arguments(market, int(owner, 16), filler, amount))
    start = int.from_bytes(encoded[2 * WORD : 3 * WORD]) + WORD
    encoded[start : start + len(outcome)] = outcome
    return bytes(encoded)
