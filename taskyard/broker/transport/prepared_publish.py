"""Publish in two steps: make messages without sending them, put them later with few calls."""

from collections.abc import Callable, Iterable
from itertools import batched, chain
from typing import Any

import redis

from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.transport.publish_batch import PER_CALL, PublishBatch

type PreparedPuts = tuple[bytes, ...]  # arguments of put.lua for one publication, encoded


def prepare_publication(producer: Any, publish: Callable[[], object]) -> PreparedPuts:
    """
    Return what `publish` would send through this kombu producer; nothing is sent.

    Raises:
        TypeError: The producer's transport is not ours.
    """
    with producer.batch() as batch:
        publish()
        session = batch.state.session
        if not isinstance(session, PublishBatch):
            raise TypeError("only Taskyard's transport can prepare a publication")
        puts = session.take_puts()
    return tuple(str(field).encode() for put in puts for field in put)


def put_prepared(client: redis.Redis, space: Keyspace, prepared: Iterable[PreparedPuts]) -> None:
    """
    Put prepared publications in their order; one that is there already is left as it is.

    Raises:
        redis.RedisError: The broker does not answer; the messages may be there or not.
    """
    for part in batched(prepared, PER_CALL, strict=False):
        run_script(client, space, "put", *chain.from_iterable(part))
