"""Writing a flow: steps, what they wait for, how they are taken back, and what happens when one fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskyard.flows.definition.polling import Poll, seconds_of
from taskyard.flows.plan import MOST_STEPS, FlowDefinitionError, FlowPlan, PlannedStep, check_name, check_plan
from taskyard.flows.states import MAX_EVENT, POLICIES, IfFailed
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.option_checks import LONGEST_TEXTS, check_options
from taskyard.tasks.payloads import Payload
from taskyard.tasks.sending import find_task

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from taskyard.flows.release.starting import FlowRun
    from taskyard.tasks.declaration import TypedTask

AT_ONCE = 500  # members of a group that run at once, unless it says another number
MOST_AT_ONCE = 10_000
DEEPEST = 10  # flows inside each other


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a definition; other steps come after it."""

    flow: str
    name: str

    def if_failed(self, policy: IfFailed) -> Dependency:
        """
        Say what this step's final failure means to the one that comes after it.

        ``fail``: the flow fails. ``ignore``: the child runs when all its parents have ended. ``continue``: it runs at
        the first failure. ``drop``: as ``ignore``, and the failure is not told.
        """
        if policy not in POLICIES:
            raise FlowDefinitionError(f"step {self.name!r}: policy {policy!r}: use {', '.join(POLICIES)}")
        return Dependency(self.name, policy, self.flow)


@dataclass(frozen=True, slots=True)
class Dependency:
    """A step that another one waits for, and what its failure means to that."""

    name: str
    policy: IfFailed = "fail"
    flow: str | None = None


type After = Step | Dependency | str  # a name may be of a step that is written later


class Flow:
    """A graph of tasks that is stored and always ends in a known state."""

    def __init__(self, name: str, *, key: str | None = None, deadline: timedelta | None = None) -> None:
        """
        Begin a definition.

        Args:
            name: What kind of flow it is, such as ``dns.create``.
            key: Of one key there is one flow: starting it again returns the first one.
            deadline: From the start, or the resume, until it fails; None: it may take for ever.

        Raises:
            FlowDefinitionError: The name, key or deadline cannot be one.
        """
        if key is not None:
            _check_key(key)
        self.plan = FlowPlan(
            name=check_name("flow", name), key=key, deadline_seconds=seconds_of("deadline", deadline), edges=[]
        )
        self._depth = 1

    def step[**P, M: Payload, **Q, N: Payload](  # noqa: PLR0913 - what a step can be, by keyword
        self,
        name: str,
        task: TypedTask[P, M],
        payload: M,
        *,
        after: Sequence[After] = (),
        undo: tuple[TypedTask[Q, N], N] | None = None,
        poll: Poll | None = None,
        deadline: timedelta | None = None,
        cleanup: bool = False,
        priority: str | int | None = None,
    ) -> Step:
        """
        Add a step.

        Args:
            name: Unique in the flow; its result is read by it.
            task: What does the work.
            payload: What the task is given.
            after: The steps that it waits for.
            undo: What takes its work back when the flow fails or is cancelled after it succeeded.
            poll: How often and how long it looks again while its handler raises ``Pending``.
            deadline: From its release until it has failed.
            cleanup: Its final failure is noted, and fails nothing.
            priority: Of its message; None: normal.

        Raises:
            FlowDefinitionError: A name is malformed, the payload is none of the task, or a value has no meaning.
        """
        options: dict[str, Any] = {"poll": poll.facts()} if poll else {}
        made = self._task_step(check_name("step", name), task, payload, options, priority)
        made.is_cleanup, made.deadline_seconds = cleanup, seconds_of("deadline", deadline)
        self._add(made, after)
        if undo is not None:
            self._add_undo(made.name, *undo)
        return Step(self.plan.name, name)

    def fan_out[**P, M: Payload](  # noqa: PLR0913 - what a group can be, by keyword
        self,
        name: str,
        task: TypedTask[P, M],
        payloads: Iterable[M],
        *,
        after: Sequence[After] = (),
        at_once: int = AT_ONCE,
        if_failed: IfFailed = "fail",
        deadline: timedelta | None = None,
        cleanup: bool = False,
    ) -> Step:
        """
        Add a group of steps of one task, called ``name[0]``, ``name[1]``, ...; it ends when all of them have.

        Args:
            name: Of the group.
            task: What each member runs.
            payloads: One for each member; there may be none.
            after: The steps that the group waits for.
            at_once: How many members run at the same time.
            if_failed: What a member's failure means to the group, as of :meth:`Step.if_failed`.
            deadline: Of the group as a whole.
            cleanup: Failures of it fail nothing.
        """
        some = islice(payloads, MOST_STEPS + 1)  # one more than a flow may have: it is refused when it starts
        members = [self._task_step(f"{name}[{i}]", task, payload, {}, None) for i, payload in enumerate(some)]
        self._add_group(check_name("step", name), members, after, at_once=at_once, if_failed=if_failed)
        group = next(step for step in self.plan.steps if step.name == name)
        group.deadline_seconds, group.is_cleanup = seconds_of("deadline", deadline), cleanup
        return Step(self.plan.name, name)

    def subflow(self, name: str, flow: Flow, *, after: Sequence[After] = (), deadline: timedelta | None = None) -> Step:
        """Add a step that starts another flow and waits for its end; its result is the inner flow's id."""
        check_plan(flow.plan)
        self._depth = max(self._depth, flow._depth + 1)
        if self._depth > DEEPEST:
            raise FlowDefinitionError(f"step {name!r}: more than {DEEPEST} flows are inside each other")
        made = PlannedStep(name=check_name("step", name), kind="flow", payload=flow.plan.model_dump(mode="json"))
        made.deadline_seconds = seconds_of("deadline", deadline)
        self._add(made, after)
        return Step(self.plan.name, name)

    def wait_for_event(
        self, name: str, event: str, key: str = "", *, within: timedelta | None = None, after: Sequence[After] = ()
    ) -> Step:
        """Add a step that waits for :func:`signal_flow` with this event and key; its result is the signal's value."""
        made = PlannedStep(name=check_name("step", name), kind="event", options={"event": _event_text(event, key)})
        made.deadline_seconds = seconds_of("within", within)
        self._add(made, after)
        return Step(self.plan.name, name)

    def wait_for_approval(self, name: str, *, within: timedelta | None = None, after: Sequence[After] = ()) -> Step:
        """Add a step that waits until a person approves it: ``flows approve``."""
        return self.wait_for_event(name, "approval", name, within=within, after=after)

    def on_failure[**P, M: Payload](self, name: str, task: TypedTask[P, M], payload: M) -> None:
        """Add a step that runs when the flow fails or is cancelled, whichever step it was, after what was undone."""
        made = self._task_step(check_name("step", name), task, payload, {}, None)
        made.role = "failure"
        self.plan.steps.append(made)

    @classmethod
    def from_canvas(cls, name: str, canvas: Any, *, key: str | None = None, deadline: timedelta | None = None) -> Flow:
        """
        Make a flow of a Celery canvas: `chain`, `group` and `chord` of platform tasks by `.si()`, nested as you like.

        A group of one task becomes a group of the flow, so that ten thousand members are no burden. Steps are called
        by their tasks, with a number.

        Raises:
            FlowDefinitionError: A signature takes the result of another one, or has options that a step has not.
        """
        from taskyard.flows.definition.canvas import add_canvas  # noqa: PLC0415 - a flow that is written as one needs no canvas

        flow = cls(name, key=key, deadline=deadline)
        add_canvas(flow, canvas)
        return flow

    def start(self) -> FlowRun:
        """
        Store the flow and hand its first steps to the broker.

        Raises:
            FlowDefinitionError: The definition is not sound; nothing was written.
        """
        from taskyard.database.engine import open_session  # noqa: PLC0415 - defining a flow needs no database

        with open_session() as session, session.begin():
            return self.start_in(session)

    def start_in(self, session: Session) -> FlowRun:
        """
        Store the flow in the caller's own transaction; its first steps are handed over after the commit.

        Raises:
            FlowDefinitionError: The definition is not sound; nothing was written.
        """
        from taskyard.flows.release.starting import start_plan  # noqa: PLC0415 - as above

        return start_plan(session, self.plan)

    def _add(self, step: PlannedStep, after: Sequence[After]) -> None:
        given: Any = after
        if isinstance(given, (str, Step, Dependency)):
            raise FlowDefinitionError(f"step {step.name!r}: `after` is a list of steps")
        self.plan.steps.append(step)
        for each in after:
            edge = Dependency(each) if isinstance(each, str) else each
            if edge.flow not in {None, self.plan.name}:
                raise FlowDefinitionError(
                    f"step {step.name!r} comes after {edge.name!r} of another flow, {edge.flow!r}"
                )
            policy: IfFailed = edge.policy if isinstance(edge, Dependency) else "fail"
            self.plan.edges.append((edge.name, step.name, policy))

    def _add_group(
        self, name: str, members: Sequence[PlannedStep], after: Sequence[After], *, at_once: int, if_failed: IfFailed
    ) -> None:
        if if_failed not in POLICIES:
            raise FlowDefinitionError(f"group {name!r}: policy {if_failed!r}: use {', '.join(POLICIES)}")
        if type(at_once) is not int or not 1 <= at_once <= MOST_AT_ONCE:
            raise FlowDefinitionError(f"group {name!r}: at_once {at_once!r} is not between 1 and {MOST_AT_ONCE}")
        self._add(PlannedStep(name=name, kind="group", options={"at_once": at_once}, if_failed=if_failed), after)
        for member in members:
            member.group = name
        self.plan.steps.extend(members)

    def _add_undo(self, target: str, task: Any, payload: Payload) -> None:
        made = self._task_step(f"undo:{target}", task, payload, {}, None)
        made.role, made.target = "undo", target
        self.plan.steps.append(made)

    @staticmethod
    def _task_step(
        name: str, task: Any, payload: Payload, options: dict[str, Any], priority: str | int | None
    ) -> PlannedStep:
        try:
            declared = find_task(task.name)
            wire = declared.wire_of(payload)
            if priority is not None:
                check_options(chosen := {"priority": priority})
                options |= chosen
        except (InvalidPayloadError, UnknownTaskError, AttributeError, ValueError) as error:
            raise FlowDefinitionError(f"step {name!r}: {error}") from error
        return PlannedStep(
            name=name, task=declared.name, payload=wire, options={**options, "queue": declared.home.name}
        )


def _event_text(event: str, key: str) -> str:
    text = f"{check_name('event', event)}:{key}"
    if len(text) > MAX_EVENT or not text.isprintable():
        raise FlowDefinitionError(
            f"event {event!r}: key {key[:80]!r}: use printable text, at most {MAX_EVENT} with both"
        )
    return text


def _check_key(key: str) -> None:
    longest = LONGEST_TEXTS["user_id"]
    given: Any = key
    if not isinstance(given, str) or not 1 <= len(given) <= longest or not given.isprintable():
        raise FlowDefinitionError(f"key {str(key)[:80]!r}: use 1 to {longest} printable characters")
