"""Celery's and kombu's classes that we extend from the inside, as `Any`: their stubs know only the public parts."""

from collections.abc import Callable
from typing import Any

import billiard.einfo
import celery.backends.redis
import celery.bootsteps
import celery.concurrency.thread
import celery.worker.consumer
import celery.worker.request
import kombu.exceptions
import kombu.transport.base
import kombu.transport.redis
import kombu.transport.virtual

_base: Any = kombu.transport.base
_redis: Any = kombu.transport.redis
_results: Any = celery.backends.redis
_bootsteps: Any = celery.bootsteps
_exceptions: Any = kombu.exceptions
_einfo: Any = billiard.einfo
_request: Any = celery.worker.request
_thread: Any = celery.concurrency.thread

RedisChannel: Any = _redis.Channel
RedisSentinelChannel: Any = _redis.SentinelChannel
RedisTransport: Any = _redis.Transport
RedisPoller: Any = _redis.MultiChannelPoller
RedisPublishBatch: Any = _redis.PublishBatch
RedisResults: Any = _results.RedisBackend
RedisSentinelResults: Any = _results.SentinelBackend
RedisResultsConsumer: Any = _results.ResultConsumer
VirtualQoS: Any = kombu.transport.virtual.QoS
VirtualMessage: Any = kombu.transport.virtual.Message
BatchPublishError: Any = _exceptions.BatchPublishError
CeleryRequest: Any = celery.worker.request.Request
CeleryConsumer: Any = celery.worker.consumer.Consumer
ThreadPool: Any = _thread.TaskPool
create_request_cls: Any = _request.create_request_cls
ExceptionWithTraceback: Any = _einfo.ExceptionWithTraceback
SENTINEL_PORT: int = _redis.SentinelTransport.default_port
REFRESH_BINDING: str = _redis.REFRESH_BINDING
SWEEP_BINDINGS: str = _redis.SWEEP_BINDINGS
to_rabbitmq_queue_arguments: Callable[..., dict[str, Any]] = _base.to_rabbitmq_queue_arguments
CHORD_PART: str = _results.CHORD_PART_RETURN_LUA
CHORD_CLEANUP: str = _results.CHORD_CLEANUP_LUA
CHORD_CLAIM_EXTEND: str = _results.CHORD_CLAIM_EXTEND_LUA
join_would_block: Callable[[], bool] = _results.task_join_will_block
ENDING_STATES: tuple[int, int] = (_bootsteps.CLOSE, _bootsteps.TERMINATE)
