"""The timetable of an app: the schedules that the code of its domains owns."""

from collections.abc import Sequence
from typing import Any

from taskyard.beat.entries import Entry
from taskyard.domain import Domain


def timetable(domains: Sequence[Domain]) -> tuple[Entry[Any], ...]:
    """
    Return the entries of all domains under the settings of this process.

    Raises:
        SettingsError: A setting that says when is no such text.
        ValueError: Two entries have one name.
    """
    entries = tuple(entry for domain in domains if domain.timetable for entry in domain.load("timetable")())
    names = [entry.name for entry in entries]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two schedules of the code are called {', '.join(sorted(doubles))}")
    return entries
