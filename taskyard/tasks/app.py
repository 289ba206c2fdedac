"""The composition root: the Celery app, the ``@task`` decorator, and the ways to enqueue."""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any, Protocol, Unpack, cast

from celery import Celery
from celery.signals import beat_init, setup_logging

from taskyard.broker.transport.bulk_publish import copies_of, fixed_options
from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.broker.transport.options import transport_settings
from taskyard.broker.transport.publish_batch import PER_CALL
from taskyard.broker.transport.result_backend import use_our_results
from taskyard.logging import configure_logging
from taskyard.settings.celery_settings import celery_config, kombus
from taskyard.settings.platform import current_settings
from taskyard.settings.queues import Queue, declare
from taskyard.tasks.call_options import CallOptions, Run, message_options
from taskyard.tasks.errors import UnknownTaskError
from taskyard.tasks.option_checks import check_queue
from taskyard.tasks.payloads import Payload
from taskyard.tasks.platform_task import PlatformTask, settle
from taskyard.tasks.policy import Policy
from taskyard.tasks.reporting import AttemptLogs

TASK_MODULES = (
    "tasks.backups.tasks",
    "taskyard.tasks.dead_letters.task",
    "taskyard.flows.tasks",
    "tasks.markets.tasks",
    "tasks.reconciliation.tasks",
    "taskyard.tasks.records.tasks",
    "taskyard.webhooks.tasks",
)
_declared: set[str] = set()


def _configuration() -> dict[str, Any]:
    """Read the settings when Celery first needs them, so that importing this module touches no environment."""
    settings = current_settings()
    return celery_config(settings) | transport_settings(settings) | {"task_routes": (_to_its_queue,)}


def _to_its_queue(name: str, *_: Any, **__: Any) -> dict[str, str] | None:
    """Route a task of ours to the queue it was declared with; Celery asks for every message that names no queue."""
    declared = app.tasks.get(name)
    return {"queue": declared.home.name} if isinstance(declared, PlatformTask) else None


app = Celery("taskyard", include=TASK_MODULES)
app.add_defaults(_configuration)
use_our_results(app)
app.steps["worker"].add("taskyard.history.writer.bootstep:AuditWriter")  # by name: only a worker imports it
app.steps["worker"].add("taskyard.broker.worker.signal_handlers:SoftSignals")  # as above
app.steps["worker"].add("taskyard.monitor.in_worker:WorkerMonitor")  # as above
app.steps["worker"].add("taskyard.tasks.start_checks:StartCheck")  # as above


class TypedTask[**P, M: Payload](Protocol):
    """What ``@task`` makes of a function: a Celery task whose calls are checked by mypy and by its payload model."""

    name: str
    payload: type[M]

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Enqueue with these payload fields."""

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """As `delay`, for `async def` handlers."""

    def enqueue(self, payload: M, **options: Unpack[CallOptions]) -> Run:
        """Enqueue a payload with options."""

    def apply_async(
        self, args: None = None, kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Run:
        """Enqueue with JSON-like keyword arguments and options."""


def task[**P, M: Payload](
    name: str,
    payload: Callable[P, M],
    *,
    queue: Queue,
    policy: Policy | None = None,
    on_redrive: Callable[[M], None] | None = None,
) -> Callable[[Callable[[M], Any]], TypedTask[P, M]]:
    """
    Declare a task: a stable name, one payload model, one line of work.

    Args:
        name: Travels on the wire; ``domain.verb``, never derived from a module's path.
        payload: The payload model (a class).
        queue: Where it waits; one of the platform's, or one of the app's own, which is declared by this.
        policy: What it is granted; None takes the defaults of :class:`taskyard.tasks.policy.Policy`.
        on_redrive: Called in the operator's process before a dead letter of this task is sent again.

    Raises:
        ValueError: The name is taken, or the queue cannot be.
    """
    if name in _declared:
        raise ValueError(f"task {name!r} is declared twice")
    declare(queue)
    if cast("Any", app).configured and queue.name not in app.amqp.queues:
        app.amqp.queues.select_add(kombus(queue))
    _declared.add(name)
    granted = policy or Policy()

    def register(handler: Callable[[M], Any]) -> TypedTask[P, M]:
        def run(self: PlatformTask, *args: Any, **kwargs: Any) -> Any:
            return settle(self, args, kwargs)

        run.__name__, run.__module__, run.__doc__ = handler.__name__, handler.__module__, handler.__doc__
        attributes: dict[str, Any] = {
            "payload": payload,
            "handler": staticmethod(handler),
            "is_async": iscoroutinefunction(handler),
            "home": queue,
            "policy": granted,
            "on_redrive": on_redrive and staticmethod(on_redrive),
            "soft_time_limit": granted.soft_limit and granted.soft_limit.total_seconds(),
            "time_limit": granted.hard_limit and granted.hard_limit.total_seconds(),
        }
        declare: Any = app.task(base=PlatformTask, bind=True, name=name, **attributes)
        return cast("TypedTask[P, M]", declare(run))

    return register


def find_task(name: str) -> PlatformTask:
    """
    Return the task of this name.

    Raises:
        UnknownTaskError: No such task; the text lists the names that exist.
    """
    declared = app.tasks.get(name)
    if isinstance(declared, PlatformTask):
        return declared
    app.loader.import_default_modules()
    known = {key: entry for key, entry in app.tasks.items() if isinstance(entry, PlatformTask)}
    if name not in known:
        raise UnknownTaskError(
            f"unknown task {name!r} (if a module of yours declares it, give that: celery -A module); "
            f"known: {', '.join(sorted(known))}"
        )
    return known[name]


def send(name: str, fields: Mapping[str, Any], **options: Unpack[CallOptions]) -> Run:
    """
    Enqueue by name, for admin tools: the same checks as ``apply_async``.

    Raises:
        UnknownTaskError: No such task; nothing was sent.
        InvalidPayloadError: The fields do not fit its payload model; nothing was sent.
    """
    return find_task(name).apply_async(kwargs=fields, **options)


def enqueue_many[**P, M: Payload](
    target: TypedTask[P, M],
    payloads: Sequence[M],
    each: Callable[[M], CallOptions] | None = None,
    **options: Unpack[CallOptions],
) -> list[str]:
    """
    Enqueue many payloads in few calls to the broker; return their run ids in the same order.

    All are checked before the first is sent. ``each`` gives options that differ from payload to payload. Where a run
    with the same dedup key is already there, its id is returned.

    The first message takes Celery's whole way; the others are copies of it, at a tenth of the cost.

    Raises:
        InvalidPayloadError: A payload is too large; nothing was sent.
        ValueError: An option has no meaning; nothing was sent.
        OperationalError, BatchPublishError: The broker did not answer; some may have been sent. Both are KombuError.
    """
    declared = find_task(target.name)
    if "task_id" in options:
        raise ValueError("task_id names one run: let `each` give them")
    messages = []
    for payload in payloads:
        wire = declared.wire_of(payload)
        chosen: dict[str, Any] = {**options, **(each(payload) if each else {})}
        check_queue(chosen.get("queue"), app.amqp.queues)
        messages.append((wire, message_options(payload.mask(wire), chosen)))
    with collect_duplicates() as duplicates, app.producer_or_acquire() as producer, producer.batch(PER_CALL) as batch:
        sent, copies, model = list[str](), None, None
        for wire, settings in messages:
            if copies is not None and fixed_options(settings) == model:
                sent.append(copies.put(wire, settings))
                continue
            sent.append(str(declared.publish(wire, {**settings, "producer": producer}).id))
            copies, model = copies_of(batch.state.session, app), fixed_options(settings)
    return [duplicates.get(run_id, run_id) for run_id in sent]


@setup_logging.connect
def _log_our_way(**_: Any) -> None:
    """Celery asks before it configures logging; with a receiver it leaves that to us."""
    configure_logging(current_settings())
    logging.getLogger().addHandler(AttemptLogs())


@beat_init.connect
def _tell_what_beat_does(sender: Any, **_: Any) -> None:
    """Let beat answer scrapes; by name: only beat imports it."""
    import_module("taskyard.monitor.in_beat").start(sender)
