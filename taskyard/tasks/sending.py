"""Enqueue by name, or many at once; a single typed task has `.delay()` and `.enqueue()` of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from textwrap import shorten
from typing import Any, Unpack

from taskyard.broker.transport.bulk_publish import copies_of, fixed_options
from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.broker.transport.publish_batch import PER_CALL
from taskyard.tasks.call_options import CallOptions, RunHandle, message_options
from taskyard.tasks.current_app import current_app
from taskyard.tasks.declaration import TypedTask
from taskyard.tasks.errors import UnknownTaskError
from taskyard.tasks.option_checks import check_queue
from taskyard.tasks.payloads import Payload
from taskyard.tasks.platform_task import PlatformTask

LONGEST_LIST = 700  # characters of the names of known tasks in an error


def find_task(name: str) -> PlatformTask:
    """
    Return the task of this name.

    Raises:
        UnknownTaskError: No such task; the text lists the names that exist, those most alike first.
    """
    app = current_app()
    declared = app.tasks.get(name)
    if isinstance(declared, PlatformTask):
        return declared
    app.loader.import_default_modules()
    known = {key: entry for key, entry in app.tasks.items() if isinstance(entry, PlatformTask)}
    if name not in known:
        nearest_first = sorted(known, key=lambda each: (-SequenceMatcher(None, name, each).ratio(), each))
        raise UnknownTaskError(
            f"unknown task {name!r} (if a module of yours declares it, give that: celery -A module); "
            f"known: {shorten(', '.join(nearest_first), LONGEST_LIST, placeholder=' ...')}"
        )
    return known[name]


def send(name: str, fields: Mapping[str, Any], **options: Unpack[CallOptions]) -> RunHandle:
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
    app, declared = current_app(), find_task(target.name)
    if "task_id" in options:
        raise ValueError("task_id names one run: let `each` give them")
    messages = []
    for payload in payloads:
        wire = declared.wire_of(payload)
        chosen: dict[str, Any] = {**options, **(each(payload) if each else {})}
        check_queue(chosen.get("queue"), app.amqp.queues)
        messages.append((wire, message_options(payload.mask(wire), chosen)))
    with collect_duplicates() as duplicates, publishing_many() as publish:
        sent = [publish(declared, wire, settings) for wire, settings in messages]
    return [duplicates.get(run_id, run_id) for run_id in sent]


@contextmanager
def publishing_many() -> Iterator[Callable[[PlatformTask, Mapping[str, Any], dict[str, Any]], str]]:
    """
    Give a function that publishes a task's checked JSON values with options of Celery's, and returns the run id.

    Of messages in a row that differ only in what copies may, the first takes Celery's whole way. All are sent when the
    block ends.

    Raises:
        OperationalError, BatchPublishError: As :func:`enqueue_many`.
    """
    app, copies, model = current_app(), None, None
    with app.producer_or_acquire() as producer, producer.batch(PER_CALL) as batch:

        def publish(declared: PlatformTask, wire: Mapping[str, Any], settings: dict[str, Any]) -> str:
            nonlocal copies, model
            kind = (declared.name, fixed_options(settings))
            if copies is not None and kind == model:
                return copies.put(wire, settings)
            run_id = str(declared.publish(wire, {**settings, "producer": producer}).id)
            copies, model = copies_of(batch.state.session, app), kind
            return run_id

        yield publish
