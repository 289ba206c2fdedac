"""Read all groups of settings once from the environment, check them together, and hand them out."""

import os
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, overload

from dotenv import dotenv_values
from pydantic import ValidationError

from taskyard.settings.group import SettingsError, SettingsGroup
from taskyard.settings.near_misses import OURS_ALONE, near_miss
from taskyard.settings.platform import Settings
from taskyard.settings.running_server import running_server

LONGEST_TEXT = 300  # characters of what is said of one value
FOREIGN_NAMES = frozenset({"TASKYARD_CONFIG"})  # reserved for the shell scripts of a deployment

type Group = type[SettingsGroup]

_groups: list[Group] = [Settings]


def add_group(group: Group) -> None:
    """
    Let the settings of a domain be read with all others; adding one twice changes nothing.

    Raises:
        ValueError: Another group has a field of the same name, or a field begins with none of the group's prefixes.
    """
    if group in _groups:
        return
    taken = {name: known for known in _groups for name in known.model_fields}
    for name in group.model_fields:
        if name in taken:
            raise ValueError(f"setting {name.upper()} of {group.__name__}: {taken[name].__name__} has it already")
        if not name.upper().startswith(group.prefixes):
            raise ValueError(f"setting {name.upper()} of {group.__name__}: begin it with {' or '.join(group.prefixes)}")
    _groups.append(group)
    current_settings.cache_clear()


def setting_groups() -> tuple[Group, ...]:
    """Return all groups that this process reads, the library's first."""
    return tuple(_groups)


def setting_prefixes() -> tuple[str, ...]:
    """Return what the names of our variables begin with."""
    return tuple(prefix for group in _groups for prefix in group.prefixes)


@overload
def load_settings(environ: Mapping[str, str], dotenv: Path | None = None) -> Settings: ...


@overload
def load_settings[G: SettingsGroup](environ: Mapping[str, str], dotenv: Path | None = None, *, group: type[G]) -> G: ...


def load_settings(environ: Mapping[str, str], dotenv: Path | None = None, *, group: Group = Settings) -> SettingsGroup:
    """
    Read and check all settings; return those of one group.

    Args:
        environ: Usually ``os.environ``; wins over the file.
        dotenv: A ``.env`` file, ignored when it does not exist.
        group: Whose settings; what is wrong in any group is an error.

    Raises:
        SettingsError: One line for each wrong value or mistyped name, then the names that are known.
    """
    given = {**(dotenv_values(dotenv) if dotenv else {}), **environ}
    wanted = [*_groups, *(() if group in _groups else (group,))]
    known = {name.upper() for each in wanted for name in each.model_fields}
    prefixes = tuple(prefix for each in wanted for prefix in each.prefixes)
    unknown = [name for name in sorted(given) if name.startswith(prefixes) and name not in known]
    errors = [line for name in unknown if name not in FOREIGN_NAMES and (line := _unknown_line(name, known))]
    loaded: dict[Group, SettingsGroup] = {}
    for each in wanted:
        try:
            loaded[each] = _read(each, given)
        except ValidationError as error:
            errors += [_line(e) for e in error.errors()]
    if errors:
        raise SettingsError("\n".join([*errors, f"Known settings: {', '.join(sorted(known))}"]))
    return loaded[group]


class _CurrentSettings:
    """The settings of this process; see :data:`current_settings`."""

    @overload
    def __call__(self) -> Settings: ...

    @overload
    def __call__[G: SettingsGroup](self, group: type[G]) -> G: ...

    def __call__(self, group: Group = Settings) -> SettingsGroup:
        """Return a group, read from the environment and ``.env`` at the first call."""
        return _current(group)

    def cache_clear(self) -> None:
        """Read anew at the next call."""
        _current.cache_clear()


current_settings = _CurrentSettings()


def is_broker_given() -> bool:
    """Tell whether REDIS_URL is set for this process, in the environment or in ``.env``."""
    return bool(({**dotenv_values(Path(".env")), **os.environ}.get("REDIS_URL") or "").strip())


@cache
def _current(group: Group) -> SettingsGroup:
    environ = dict(os.environ)
    if not is_broker_given():
        folder = load_settings(environ, Path(".env")).taskyard_data
        if url := running_server(folder / "valkey"):
            environ["REDIS_URL"] = url
    return load_settings(environ, Path(".env"), group=group)


def _read(group: Group, given: Mapping[str, str | None]) -> SettingsGroup:
    values: dict[str, Any] = {
        name: value for name in group.model_fields if (value := given.get(name.upper())) and value.strip()
    }
    return group(**values)


def _unknown_line(name: str, known: Collection[str]) -> str | None:
    """Return the error of an unknown name; None: it is a variable of another program."""
    if meant := near_miss(name, known):
        return f"{name}: not a setting of Taskyard; did you mean {meant}?"
    return f"{name}: not a setting of Taskyard" if name.startswith(OURS_ALONE) else None


def _line(error: Any) -> str:
    return f"{str(error['loc'][0]).upper()}: {error['msg'].removeprefix('Value error, ')[:LONGEST_TEXT]}"
