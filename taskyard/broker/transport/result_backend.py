"""Celery's result backend on Redis, for a server that is full or away."""

from functools import cached_property
from typing import Any

from celery import Celery

from taskyard.broker.scripts.failover import reconnect_on_refusal
from taskyard.broker.scripts.runner import ALLOW_OOM
from taskyard.broker.scripts.text_script import TextScript
from taskyard.broker.untyped import (
    CHORD_CLAIM_EXTEND,
    CHORD_CLEANUP,
    CHORD_PART,
    RedisResults,
    RedisResultsConsumer,
    RedisSentinelResults,
    join_would_block,
)

# Store a result and publish it.
# KEYS[1] string and channel: the result. ARGV[1]: its text. ARGV[2]: seconds to keep it; 0: for ever.
STORE = f"""{ALLOW_OOM}
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
end
return redis.call('PUBLISH', KEYS[1], ARGV[1])
"""


class ResultSubscriptions(RedisResultsConsumer):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Where an app listens for the results of what it publishes."""

    _pubsub: Any = None
    _unsubscribes = False

    def subscribe_at_once(self, task_id: str) -> None:
        """
        Subscribe before the run is published, and fail as soon as publishing would: Celery tries for twenty seconds.

        Raises:
            redis.ConnectionError: The server is away.
        """
        key = self._get_key_for_task(task_id)
        with self._locked():
            try:
                self._subscribe(key)
            except self._connection_errors:
                self._subscribe_anew(key)
            self.subscribed_to.add(key)

    def _subscribe(self, key: bytes) -> None:
        if self._pubsub is None:
            self._pubsub = self.backend.client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(key)

    def _subscribe_anew(self, key: bytes) -> None:
        """The connection may be one to a server that was restarted since."""
        try:
            self._reconnect_pubsub()
            self._subscribe(key)
        except self._connection_errors:
            self._give_up()
            raise

    def cancel_for(self, task_id: str) -> None:
        """Unsubscribe from a result; Celery would retry that, too, for twenty seconds."""
        self._unsubscribes = True
        try:
            super().cancel_for(task_id)
        finally:
            self._unsubscribes = False

    def _reconnect(self) -> None:
        if self._unsubscribes:
            self._give_up()
        else:
            super()._reconnect()

    def _give_up(self) -> None:
        """Whoever waits for a result subscribes anew."""
        self._pubsub = None
        self.subscribed_to.clear()


class ResilientResults:
    """A server that has reached `maxmemory` refuses new messages only: without their results, runs would fail."""

    ResultConsumer = ResultSubscriptions
    client: Any
    result_consumer: ResultSubscriptions
    expires: int | None

    def on_task_call(self, producer: Any, task_id: str) -> None:  # noqa: ARG002 - Celery's signature
        """Listen for the result of a run that is about to be published."""
        if not join_would_block():
            self.result_consumer.subscribe_at_once(task_id)

    def _get_pool(self, **parameters: Any) -> Any:
        pool: Any = super()._get_pool(**parameters)  # type: ignore[misc]  # of the class beside
        return reconnect_on_refusal(pool)

    @cached_property
    def _store(self) -> Any:
        return TextScript(self.client, STORE)

    @cached_property
    def _chord_part_return_script(self) -> Any:
        return TextScript(self.client, ALLOW_OOM + CHORD_PART)

    @cached_property
    def _chord_cleanup_script(self) -> Any:
        return TextScript(self.client, CHORD_CLEANUP)

    @cached_property
    def _chord_claim_extend_script(self) -> Any:
        return TextScript(self.client, CHORD_CLAIM_EXTEND)

    def _set(self, key: bytes, value: bytes, expires: int | None = None) -> None:
        keep = self.expires if expires is None else expires
        self._store(keys=[key], args=[value, keep or 0], client=self.client)


class RedisResultBackend(ResilientResults, RedisResults):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """On one server."""


class SentinelResultBackend(ResilientResults, RedisSentinelResults):  # type: ignore[misc]  # as above
    """On the master that sentinels name."""


def use_our_results(app: Celery) -> None:
    """Let the app keep results in a backend of this module, whichever of Redis's URLs it is given."""
    names = dict.fromkeys(("redis", "rediss"), f"{__name__}:RedisResultBackend") | {
        "sentinel": f"{__name__}:SentinelResultBackend"
    }
    app.loader.override_backends = names
