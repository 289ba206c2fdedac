"""The embedded Valkey of `up`: one per folder, on the usual port when nobody has it."""

import fcntl
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from taskyard.broker.server.valkey import EmbeddedValkey

USUAL_PORT = 6379  # where every command looks when REDIS_URL is not set
PATIENCE = 5.0  # seconds for the server before us to end


class FolderInUseError(RuntimeError):
    """Another `up` keeps its server in this folder."""


@contextmanager
def embedded_valkey(folder: Path) -> Iterator[EmbeddedValkey]:
    """
    Run a Valkey server whose data is in `folder`.

    Raises:
        FolderInUseError: Another process does so; two servers would destroy the data.
        ServerStartError: It did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        if not _becomes_ours(lock):
            raise FolderInUseError(
                f"another `up` keeps its Valkey in {folder}: end it, or give this one its own TASKYARD_DATA"
            )
        port = USUAL_PORT if _is_free(USUAL_PORT) else 0
        valkey = EmbeddedValkey(folder, port)
        valkey.holds = [lock.fileno()]
        with valkey:
            yield valkey


def _becomes_ours(lock: TextIO) -> bool:
    """Wait a while: the server of an `up` that was killed has the lock until its data is on disk."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)  # a lock that comes free tells nobody, and waiting inside flock has no limit
        else:
            return True


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
