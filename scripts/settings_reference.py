"""Write `.env.example` and `docs/settings.md` from the settings: `.venv/bin/python -m scripts.settings_reference`."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

import tasks.app  # noqa: F401 - lists the domains, whose settings are read, too
from taskyard.settings.loading import setting_groups
from taskyard.settings.types import Milliseconds

ROOT = Path(__file__).resolve().parent.parent
ENV_EXAMPLE = ROOT / ".env.example"
TABLE = ROOT / "docs" / "settings.md"

ENV_HEAD = """\
# All settings of Taskyard with their defaults. Copy to .env and change what you need; the environment wins over .env.
# An empty value means the default. Written by scripts/settings_reference.py.
"""
TABLE_HEAD = """\
# Settings

Taskyard reads its settings once, from the environment and from a `.env` file in the working directory; the
environment wins. A wrong value, or a name that is almost one of these, stops the process with one line per error and
the list of known names; variables of other programs, such as `WORKER_TIMEOUT`, do not. An empty value means the
default.

Files, folders and settings that belong together are looked at by those that need them: a worker that takes from the
queue of their tasks, `up` before it starts anything, and `doctor`. Dumps and profiles may still come; other hosts are
never asked.

Durations are plain numbers of seconds unless the meaning says otherwise; lists are separated by commas.

<!-- Written by scripts/settings_reference.py from all settings groups; a test compares them. -->

| variable | default | meaning |
|---|---|---|
"""


def env_example() -> str:
    """Return the text of `.env.example`: a comment and an assignment for each setting."""
    entries = [f"\n# {field.description}\n{name.upper()}={default_text(field)}\n" for name, field in _fields()]
    return ENV_HEAD + "".join(entries)


def settings_table() -> str:
    """Return the text of `docs/settings.md`."""
    rows = []
    for name, field in _fields():
        default = default_text(field)
        shown = f"`{default}`" if default else "unset"
        rows.append(f"| `{name.upper()}` | {shown} | {field.description} |\n")
    return TABLE_HEAD + "".join(rows)


def default_text(field: FieldInfo) -> str:
    """
    Return a setting's default as one writes it in the environment; empty when it is unset.

    >>> fields = Settings.model_fields
    >>> default_text(fields["webhook_retry_delays"]), default_text(fields["worker_queue_stalled_interval"])
    ('30,300,3600,21600,86400', '30000')
    """
    if field.default_factory is not None:
        return "cpus"  # the only default that depends on the machine
    annotation: Any = field.annotation
    return _text(field.default, in_milliseconds=annotation is Milliseconds)


def _text(value: Any, *, in_milliseconds: bool = False) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case timedelta():
            return f"{value / timedelta(milliseconds=1) if in_milliseconds else value.total_seconds():g}"
        case tuple():
            return ",".join(_text(each) for each in value)
        case _:
            return str(value)


def _fields() -> list[tuple[str, FieldInfo]]:
    return [pair for group in setting_groups() for pair in group.model_fields.items()]


if __name__ == "__main__":
    ENV_EXAMPLE.write_text(env_example())
    TABLE.write_text(settings_table())
