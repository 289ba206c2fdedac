"""The platform's app with a task that waits until the test lets it go."""

import time
from pathlib import Path

from tasks.app import app
from taskyard.launch import embedded_server
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload

__all__ = ["Hold", "app", "hold"]  # `celery -A` looks for the app here
embedded_server.DEFAULT_PORT = (
    0  # a free one: whoever else runs on this machine without a REDIS_URL would take our tasks
)
embedded_server.LOCK_TIMEOUT = 0.5  # a second `up` is refused soon


class Hold(Payload):
    """A folder where the task tells what it does, and where it looks for the file `go`."""

    folder: str
    number: int


@task("launch.hold", Hold, queue=DEFAULT)
def hold(payload: Hold) -> None:
    """Note the start, wait for `go`, note the end."""
    folder = Path(payload.folder)
    note(folder / "started", payload.number)
    while not (folder / "go").exists():
        time.sleep(0.05)
    note(folder / "ended", payload.number)


def note(path: Path, number: int) -> None:
    """Append a line, in one write."""
    with path.open("a") as out:
        out.write(f"{number}\n")
