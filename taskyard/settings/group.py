"""A group of settings: one frozen model, one set of prefixes, one error for all that is wrong."""

from typing import ClassVar

import click
from pydantic import BaseModel, ConfigDict


class SettingsError(click.ClickException, ValueError):
    """The environment holds a wrong value or an unknown name of ours; the text has one line per error."""

    exit_code = 2


class SettingsGroup(BaseModel):
    """
    Settings that belong together: the library's, or those of one domain.

    A field's name in upper case is its environment variable, its description is its documentation. A variable that
    begins with one of the prefixes and is almost a field of a group stops the process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    prefixes: ClassVar[tuple[str, ...]]  # such as ("BACKUP_",)
