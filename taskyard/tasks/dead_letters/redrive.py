"""
Resolve dead letters: run one again with fresh attempts, or discard it.

A redrive is *marked* in the database, *sent* to the broker, and *confirmed* in the database. The new run's id is
derived from the dead letter's id, so it is the same run whoever sends it. A process that dies between mark and
confirmation leaves a dead letter that is marked but not confirmed: a redrive a minute later, or at once with
`is_forced`, takes it over and sends the same run id again. At worst that message runs twice, which at-least-once
delivery allows; it is never lost.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from celery import Task
from sqlmodel import Session

from taskyard.broker.protocol.header import FLOW_HEADER, HEADER
from taskyard.database.columns import utc_now
from taskyard.history import dead_letters
from taskyard.history.dead_letters import claim_for_redrive, confirm_sent, find_dead_letter, reopen, take_over_redrive
from taskyard.history.models import DeadLetter
from taskyard.history.queries.runs import find_run
from taskyard.tasks.call_options import RunHandle, message_options
from taskyard.tasks.current_app import current_app
from taskyard.tasks.dead_letters.chords import ChordOverError, check_place, free_place
from taskyard.tasks.dead_letters.stored_message import StoredMessage, UndecodableError, read_message
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.payloads import Payload
from taskyard.tasks.platform_task import PlatformTask
from taskyard.tasks.sending import find_task

GRACE = timedelta(minutes=1)  # after this long, a redrive that was marked but not confirmed is taken over
KEPT_FACTS = ("max_attempts", "group_key", "user_id", "lifo")  # of the original message


class DeadLetterNotFoundError(LookupError):
    """No dead letter has this id."""


class NotRedrivableError(ValueError):
    """The dead letter cannot run again; the text says why. Nothing was changed."""


def redrive(  # noqa: PLR0913 - keyword-only options
    session: Session,
    dead_letter_id: UUID,
    *,
    by: str,
    reason: str = "",
    fields: Mapping[str, Any] | None = None,
    is_forced: bool = False,
) -> RunHandle:
    """
    Run a dead letter again: the same task, queue and policy, with fresh attempts.

    Of several concurrent redrives of one dead letter, one sends; the others get the same run with ``is_duplicate``.
    Commits the session, so it must have no other changes.

    Args:
        session: Made with ``expire_on_commit=False``.
        dead_letter_id: Of the dead letter.
        by: Who does it.
        reason: Why.
        fields: The payload to send instead of the original one.
        is_forced: Resend at once what was marked but not confirmed.

    Raises:
        DeadLetterNotFoundError: No such dead letter.
        NotRedrivableError: It was discarded, its task is unknown, its payload does not fit the task's model, or it is
            a member of a chord that is over.
        kombu.exceptions.OperationalError: The broker is unreachable; the dead letter is open again.
    """
    dead_letter = find_dead_letter(session, dead_letter_id)
    session.commit()  # SQLite: a read transaction holds the write lock, and importing the tasks takes time
    if dead_letter is None:
        raise DeadLetterNotFoundError(f"no dead letter {dead_letter_id}")
    if dead_letter.state == "discarded":
        raise NotRedrivableError(f"dead letter {dead_letter_id} was discarded by {dead_letter.resolved_by}")
    run_id = redriven_run_id(dead_letter_id)
    if dead_letter.state == "redriven" and not _is_abandoned(dead_letter, is_forced=is_forced):
        return _known_run(run_id)
    order = RedriveOrder(session, dead_letter, fields)
    if dead_letter.state == "open":
        mark = claim_for_redrive(session, dead_letter_id, run_id, by=by, reason=reason)
    else:
        mark = take_over_redrive(session, dead_letter, by=by, reason=reason)
    session.commit()
    if mark is None:
        return _result_of_the_other(session, dead_letter_id, run_id)
    with ExitStack() as undo:
        undo.callback(_reopen, session, dead_letter_id, mark)
        run = order.send(run_id)
        undo.pop_all()
    confirm_sent(session, dead_letter_id)
    session.commit()
    return run


def discard(session: Session, dead_letter_id: UUID, *, by: str, reason: str) -> None:
    """
    Discard an open dead letter; commits the session.

    Raises:
        DeadLetterNotFoundError: No such dead letter.
        NotRedrivableError: It is not open any more.
    """
    is_done = dead_letters.discard_dead_letter(session, dead_letter_id, by=by, reason=reason)
    session.commit()
    if is_done:
        return
    dead_letter = find_dead_letter(session, dead_letter_id)
    session.commit()
    if dead_letter is None:
        raise DeadLetterNotFoundError(f"no dead letter {dead_letter_id}")
    raise NotRedrivableError(
        f"dead letter {dead_letter_id} is {dead_letter.state} already, by {dead_letter.resolved_by}"
    )


def redriven_run_id(dead_letter_id: UUID) -> str:
    """Return the id of the one run that a dead letter can be redriven into."""
    return str(uuid5(dead_letter_id, "redrive"))


def check_redrive(session: Session, dead_letter: DeadLetter) -> None:
    """
    Check that an open dead letter could run again.

    Raises:
        NotRedrivableError: Its task is unknown, or its payload does not fit the task's model.
    """
    RedriveOrder(session, dead_letter, None)


class RedriveOrder:
    """The validated call that redrives a dead letter."""

    def __init__(self, session: Session, dead_letter: DeadLetter, fields: Mapping[str, Any] | None) -> None:
        self._dead_letter = dead_letter
        self.mark: datetime | None = None  # of the claim
        try:
            message = read_message(dead_letter.body)
            self._task = _task_of(dead_letter)
            self._call = _call_of(self._task, message, message.fields if fields is None else fields)
            self._chord = self._open_chord(message)
        except (UndecodableError, UnknownTaskError, InvalidPayloadError, ChordOverError) as error:
            raise NotRedrivableError(f"dead letter {dead_letter.id}: {error}") from error
        origin = find_run(session, dead_letter.run_id)
        self._options = self._options_of(message, origin.priority if origin else None)

    def send(self, run_id: str, producer: Any = None) -> RunHandle:
        """
        Let the domain prepare its row and the chord wait again, then send.

        Raises:
            NotRedrivableError: The chord was given up since it was checked.
        """
        if self._chord is not None:
            try:
                free_place(self._task.app, self._chord, self._dead_letter.run_id)
            except ChordOverError as error:
                raise NotRedrivableError(f"dead letter {self._dead_letter.id}: {error}") from error
        call = self._call
        if isinstance(self._task, PlatformTask) and self._task.on_redrive is not None:
            self._task.on_redrive(call.payload)
        options = {**self._options, **({"producer": producer} if producer is not None else {})}
        sent = Task.apply_async(self._task, tuple(call.args), dict(call.kwargs), task_id=run_id, **options)
        return sent if isinstance(sent, RunHandle) else RunHandle(str(sent.id))  # of a plain task

    def _open_chord(self, message: StoredMessage) -> str | None:
        """Return the id of the chord that this is a member of; None: of none."""
        headers = self._dead_letter.headers if isinstance(self._dead_letter.headers, dict) else {}
        group_id = headers.get("group")
        if "chord" not in message.continuation or not isinstance(group_id, str):
            return None
        check_place(self._task.app, group_id)
        return group_id

    def _options_of(self, message: StoredMessage, recorded_priority: int | None) -> dict[str, Any]:
        headers = self._dead_letter.headers if isinstance(self._dead_letter.headers, dict) else {}
        facts = headers.get(HEADER) or {}
        wanted = {name: facts[name] for name in KEPT_FACTS if facts.get(name)}
        wanted |= {name: str(wanted[name]) for name in ("group_key", "user_id") if name in wanted}  # of older releases
        priority = message.priority if message.priority is not None else recorded_priority
        if priority is not None:
            wanted["priority"] = priority
        payload = self._call.payload
        options = message_options({} if payload is None else payload.shown(), wanted)
        if payload is None:  # nobody can tell which arguments of a plain task are secret
            del options["kwargsrepr"], options["headers"][HEADER]["args"]
        options["headers"][HEADER]["redrive_of"] = str(self._dead_letter.id)
        if FLOW_HEADER in headers:
            options["headers"][FLOW_HEADER] = headers[FLOW_HEADER]
        hard, soft = (*(headers.get("timelimit") or ()), None, None)[:2]
        kept = {
            "time_limit": hard,
            "soft_time_limit": soft,
            "root_id": headers.get("root_id"),
            "group_id": headers.get("group"),
            "group_index": headers.get("group_index"),
            "queue": self._dead_letter.queue,
            **message.continuation,
        }
        return options | {name: value for name, value in kept.items() if value is not None}


class RedrivenCall(NamedTuple):
    """The arguments of a redriven task."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    payload: Any  # None: a plain task has no model


def _task_of(dead_letter: DeadLetter) -> Task[..., Any]:
    try:
        return find_task(dead_letter.task or "")
    except UnknownTaskError:
        plain: Task[..., Any] | None = current_app().tasks.get(dead_letter.task or "")
        if plain is None:
            raise
        return plain


def _call_of(task: Task[..., Any], message: StoredMessage, fields: Mapping[str, Any]) -> RedrivenCall:
    if not isinstance(task, PlatformTask):
        return RedrivenCall(message.positional, fields, None)
    if message.positional:
        raise UndecodableError("the message has positional arguments; platform tasks take keywords only")
    payload: Payload = task.payload.from_wire(fields)
    return RedrivenCall((), payload.to_wire(), payload)


def _is_abandoned(dead_letter: DeadLetter, *, is_forced: bool) -> bool:
    if dead_letter.redrive_sent_at is not None:
        return False
    return is_forced or dead_letter.resolved_at is None or utc_now() - dead_letter.resolved_at > GRACE


def _known_run(run_id: str) -> RunHandle:
    run = RunHandle(run_id)
    run.is_duplicate = True
    return run


def _result_of_the_other(session: Session, dead_letter_id: UUID, run_id: str) -> RunHandle:
    """Return what somebody else made of the dead letter between our read and our mark."""
    dead_letter = find_dead_letter(session, dead_letter_id)
    session.commit()
    if dead_letter is None:
        raise DeadLetterNotFoundError(f"no dead letter {dead_letter_id}")
    if dead_letter.state == "discarded":
        raise NotRedrivableError(f"dead letter {dead_letter_id} was discarded by {dead_letter.resolved_by}")
    return _known_run(run_id)


def _reopen(session: Session, dead_letter_id: UUID, mark: datetime) -> None:
    session.rollback()
    reopen(session, dead_letter_id, mark)
    session.commit()
