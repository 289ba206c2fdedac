"""The embedded Valkey of `up`: one per folder, on the default port if that is free."""

import fcntl
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from taskyard.broker.server.valkey import EmbeddedValkey
from taskyard.settings.running_server import LOCK, forget_server, remember_server

DEFAULT_PORT = 6379  # where commands connect when REDIS_URL is not set
LOCK_TIMEOUT = 5.0  # seconds for a previous server to exit


class FolderInUseError(RuntimeError):
    """Another `up` uses this folder."""


@contextmanager
def embedded_valkey(folder: Path) -> Iterator[EmbeddedValkey]:
    """
    Run a Valkey server whose data is in `folder`.

    Raises:
        FolderInUseError: Another server uses it; two would corrupt the data.
        ServerStartError: It did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        if not _acquire_lock(lock):
            raise FolderInUseError(f"another `up` runs a Valkey in {folder}: stop it, or set a different TASKYARD_DATA")
        port = DEFAULT_PORT if _is_free(DEFAULT_PORT) else 0
        valkey = EmbeddedValkey(folder, port)
        valkey.holds = [lock.fileno()]
        with valkey:
            remember_server(folder, valkey.url)
            try:
                yield valkey
            finally:
                forget_server(folder)


def _acquire_lock(lock: TextIO) -> bool:
    """Wait a while: the server of a killed `up` holds the lock until it has saved its data."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)  # flock itself has no timeout
        else:
            return True


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
