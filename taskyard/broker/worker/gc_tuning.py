"""Tune the garbage collector for a worker: many permanent objects, many short-lived ones."""

import gc
from functools import cache

YOUNG = 10_000  # new objects before a collection; a message makes about a hundred


@cache
def freeze_startup_objects() -> None:
    """Freeze startup objects and collect less often; once per process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
