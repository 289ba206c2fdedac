"""Let a member of a chord take its place again, so that its redrive brings the chord's body to run."""

from typing import Any

from celery import Celery


class ChordOverError(ValueError):
    """The body can run no more."""


def check_place(app: Celery, group_id: str) -> None:
    """
    Check that a chord still waits for its members.

    Raises:
        ChordOverError: Its body was given up, and its errback may have run; or it was published, or has expired.
    """
    backend: Any = app.backend
    if hasattr(backend, "client") and not backend.client.exists(backend.get_key_for_group(group_id, ".s")):
        raise ChordOverError(
            f"it is a member of chord {group_id}, which is over: its body was given up when a member failed, and its"
            " errback may have run; send the chord again, or this task alone"
        )


def free_place(app: Celery, group_id: str, run_id: str) -> None:
    """
    Take the failure of a member back, so that the chord waits for it again.

    Raises:
        ChordOverError: As :func:`check_place`; another member may have ended since that was asked.
    """
    backend: Any = app.backend
    if not hasattr(backend, "client"):
        return
    parts = backend.get_key_for_group(group_id, ".j")
    for part in backend.client.zrange(parts, 0, -1):
        if backend.decode(part)[1] == run_id:
            backend.client.zrem(parts, part)
    check_place(app, group_id)
