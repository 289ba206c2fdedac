"""Where the Valkey of a running `up` is, for commands and producers that have no REDIS_URL."""

import fcntl
from pathlib import Path

LOCK = "lock"  # locked by the server while it runs
URL = "url"


def remember_server(folder: Path, url: str) -> None:
    """Write where the server of this folder is."""
    (folder / URL).write_text(url)


def forget_server(folder: Path) -> None:
    """Remove that again."""
    (folder / URL).unlink(missing_ok=True)


def running_server(folder: Path) -> str | None:
    """
    Return the URL of the server whose data is in a folder; None: no server runs.

    A file that a killed `up` left behind does not count: its port may be somebody else's by now.
    """
    try:
        url = (folder / URL).read_text()
        return url if _is_locked(folder / LOCK) else None
    except OSError:
        return None


def _is_locked(path: Path) -> bool:
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
