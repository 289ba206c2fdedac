"""The embedded Valkey of `up`: one per folder, on the usual port when nobody has it."""

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.embedded import EmbeddedValkey

USUAL_PORT = 6379  # where every command looks when REDIS_URL is not set


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
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderInUseError(
                f"another `up` keeps its Valkey in {folder}: end it, or give this one its own TASKYARD_DATA"
            ) from error
        with EmbeddedValkey(folder, port=USUAL_PORT if _is_free(USUAL_PORT) else 0) as valkey:
            yield valkey


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
