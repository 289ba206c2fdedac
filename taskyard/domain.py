"""The manifest of a domain: all that the platform needs to know of one folder of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from taskyard.settings.group import SettingsGroup
from taskyard.settings.queues import Queue


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """A group of commands under `celery -A app`, in a module that is imported when one of them is used."""

    name: str
    module: str  # has a Click group called `group`
    help: str


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a domain, and how they came to be."""

    models: str  # module whose import declares them; has their `METADATA`
    migrations: Path  # folder of Alembic revisions, with a chain and a version table of their own


@dataclass(frozen=True, slots=True)
class Domain:
    """
    A folder of tasks as its app lists it; what an app does not list does not exist in it.

    Modules are named, not imported: each process imports only what it needs. ``"module:function"`` names a function.
    """

    name: str  # letters, digits and `_`; names its version table, too
    tasks: Sequence[str] = ()  # modules that declare its tasks
    queues: Sequence[Queue] = ()
    settings: type[SettingsGroup] | None = None
    timetable: str | None = None  # function () -> iterable of beat.Entry
    gauges: str | None = None  # function (session) -> iterable of Gauge: the state of its tables, for metrics
    checks: str | None = None  # function () -> iterable of Finding: what `doctor` says of it
    commands: Sequence[CommandGroup] = ()
    tables: Tables | None = None

    def load(self, part: str) -> Any:
        """
        Return what a part names, imported; None: the domain has no such part.

        Raises:
            ImportError: There is no such module; the text names the domain and the part.
        """
        name: str | None = getattr(self, part)
        if name is None:
            return None
        try:
            return resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ImportError(f"domain {self.name!r}: {part}={name!r} cannot be imported: {error}") from error
