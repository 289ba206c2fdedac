"""A publish in the middle of another one of the same thread, as in a handler of `signal.signal`."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class _Publishing(threading.local):
    depth = 0  # publishes of this thread that have begun


_publishing = _Publishing()


@contextmanager
def acquired_producer(app: Any, acquire: AbstractContextManager[Any]) -> Iterator[Any]:
    """
    Lend a producer of the pool; a publish that interrupts another one gets a connection of its own.

    Python runs a signal handler between any two instructions: the one that it interrupts may hold the lock of the
    pool, which nobody would ever release while the handler waits for it.
    """
    if _publishing.depth:
        with app.connection_for_write() as connection:
            yield app.amqp.Producer(connection, auto_declare=False)
        return
    _publishing.depth += 1
    try:
        with acquire as producer:
            yield producer
    finally:
        _publishing.depth -= 1
