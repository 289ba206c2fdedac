"""Report to the producer which run already holds a dedup key."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[dict[str, str] | None] = ContextVar("taskyard_duplicates", default=None)


@contextmanager
def collect_duplicates() -> Iterator[dict[str, str]]:
    """
    Collect the runs that were already there, while the block runs.

    kombu's publishing path throws away what a transport returns; this is the way around it. The dict maps the id of
    each refused publication to the id of the run that holds its dedup key:

        with collect_duplicates() as duplicates:
            result = task.apply_async(...)
        existing = duplicates.get(result.id)

    With `Producer.batch` the answers arrive when the batch is flushed, so the block must contain its end.
    """
    found: dict[str, str] = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def report_duplicate(refused_id: str, existing_id: str) -> None:
    """Record one refused publication, inside `collect_duplicates`."""
    found = _collected.get()
    if found is not None:
        found[refused_id] = existing_id
