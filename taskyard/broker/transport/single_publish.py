"""Single calls on a short path: after the first of a kind, a call puts a copy of that one's message."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from celery import Task
from celery.result import AsyncResult

from taskyard.broker.protocol.header import HEADER
from taskyard.broker.protocol.json_codec import dump
from taskyard.broker.transport.bulk_publish import CallOrigin, MessageModel, is_observed
from taskyard.broker.transport.channel import Channel
from taskyard.broker.transport.publish_batch import PublishBatch, RoutedMessage

KINDS = ("queue", "soft_time_limit", "time_limit")  # options that copies share with their model
COPIED = frozenset({*KINDS, "headers", "kwargsrepr", "priority", "countdown", "eta", "declare"})
MOST_MODELS = 100  # of one task in one process: who gives each call limits of its own goes Celery's way

type LongWay = Callable[..., AsyncResult[Any]]


class SinglePublisher:
    """
    Publishes the single calls of one task.

    A model belongs to one process, since a message names the process that sent it: a fork makes its own.
    """

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task
        self._models: dict[tuple[Any, ...], MessageModel | None] = {}  # None: such calls must go Celery's way
        conf = task.app.conf  # a lookup there costs as much as a tenth of a call
        self._retries = dict(conf.task_publish_retry_policy) if conf.task_publish_retry else None

    def publish(self, kwargs: Mapping[str, Any], options: Mapping[str, Any], long_way: LongWay) -> AsyncResult[Any]:
        """
        Publish one call; its signature and results are those of Celery's own.

        Args:
            kwargs: The task's keyword arguments, JSON values.
            options: Celery's options of this call.
            long_way: Publishes with more options; taken where somebody looks at each publication, for options that a
                copy cannot have, on other transports, and in eager mode.

        Raises:
            OperationalError: The broker did not answer, also after the retries of `task_publish_retry_policy`.
        """
        app = self._task.app
        if (
            not options.keys() <= COPIED
            or options["headers"].keys() != {HEADER}
            or app.conf.task_always_eager
            or is_observed(app)
        ):
            return long_way()
        kind = (os.getpid(), *(options.get(name) for name in KINDS))
        if kind not in self._models:
            return self._publish_model(kind, long_way)
        model = self._models[kind]
        return long_way() if model is None else self._publish_copy(model, kwargs, options)

    def _publish_model(self, kind: tuple[Any, ...], long_way: LongWay) -> AsyncResult[Any]:
        with self._task.app.producer_or_acquire() as producer:
            if len(self._models) >= MOST_MODELS or not isinstance(producer.channel, Channel):
                return long_way(producer=producer)
            with producer.batch() as batch:
                sent = long_way(producer=producer)
                session = batch.state.session
                routed = list(session.routed) if isinstance(session, PublishBatch) else []
                if len(routed) == 1:
                    session.take_puts()
            self._models[kind] = MessageModel(routed[0]) if len(routed) == 1 else None
            if len(routed) == 1:
                self._put(producer, routed[0], {})
            return sent

    def _publish_copy(
        self, model: MessageModel, kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> AsyncResult[Any]:
        task, app = self._task, self._task.app
        parent = app.current_worker_task
        request = parent.request if parent else None
        origin = CallOrigin(
            (request.root_id or request.id) if request else None, request.id if request else None, app.thread_oid
        )
        run_id, copy = model.copy(kwargs, options, origin)
        with app.producer_or_acquire() as producer:
            if not model.ignores_result:
                app.backend.on_task_call(producer, run_id)
            self._put(producer, copy, {"encode": dump})
        sent = task.AsyncResult(run_id)
        sent.ignored = model.ignores_result
        if parent:
            parent.add_trail(sent)
        return sent

    def _put(self, producer: Any, routed: RoutedMessage, how: Mapping[str, Any]) -> None:
        """Put as Celery would publish: with its retries, and kombu's errors."""
        connection = producer.connection

        def put() -> None:
            producer.channel.put_routed(routed, **how)

        if self._retries is not None:
            connection.ensure(producer, put, **self._retries)()
        else:
            with connection._reraise_as_library_errors():  # noqa: SLF001 - as Celery does
                put()
