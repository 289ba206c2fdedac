"""How code declares a schedule: a task and its payload, never strings; no module of the work imports this one."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from taskyard.beat.definitions import SHORTEST, Definition, Kind, Misfire, Overlap, checked
from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.timing.cron import CronExpression
from taskyard.settings.group import SettingsError
from taskyard.settings.queues import NORMAL, PriorityName
from taskyard.tasks.declaration import TypedTask
from taskyard.tasks.payloads import Payload


@dataclass(frozen=True, slots=True)
class When:
    """The timing part of an entry; made by :func:`cron` or :func:`every`."""

    kind: Kind
    expression: str
    zone: str = "UTC"


def cron(expression: str, zone: str = "UTC", *, variable: str | None = None) -> When:
    """
    Five fields, or six with seconds first, in a time zone.

    Raises:
        SettingsError: The expression is wrong, and comes from the setting `variable`.
    """
    if variable is not None:
        try:
            expression = CronExpression(expression).text
        except InvalidScheduleError as error:
            raise SettingsError(f"{variable}: {error}") from error
    return When("cron", expression, zone)


def every(interval: timedelta) -> When:
    """A fixed interval, aligned to the clock; one shorter than a second is a second."""
    return When("every", f"{max(interval, SHORTEST).total_seconds():.3f}")


@dataclass(frozen=True, slots=True)
class Entry[M: Payload]:
    """One schedule that code owns."""

    name: str
    task: TypedTask[..., M]
    payload: M
    when: When
    is_enabled: bool = True  # False: it is not saved, an existing one is retired; `schedules ls` lists it as disabled
    needs: str = ""  # the settings that enable it, for that listing
    jitter: timedelta = timedelta(0)
    misfire: Misfire = "run_once"
    misfire_limit: int = 1
    overlap: Overlap = "allow"
    priority: PriorityName | int = NORMAL
    note: str = field(default="")

    def definition(self) -> Definition:
        """
        Return what is saved.

        Raises:
            InvalidScheduleError: A setting that this entry is made of has no meaning for a schedule.
        """
        args: dict[str, Any] = self.payload.to_wire()
        return checked(
            Definition(
                name=self.name,
                task=self.task.name,
                kind=self.when.kind,
                expression=self.when.expression,
                args=args,
                zone=self.when.zone,
                jitter=self.jitter,
                misfire=self.misfire,
                misfire_limit=self.misfire_limit,
                overlap=self.overlap,
                priority=self.priority,
                note=self.note,
            )
        )
