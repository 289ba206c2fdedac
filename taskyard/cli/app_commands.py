"""
Let `celery` find the commands of an app's domains: they are known only when the app that `-A` names is imported.

Celery resolves a command before it imports the app, and loads plug-ins while its own group is being made; so the lookup
of the group's class is what can be extended.
"""

import os
import sys
from typing import Any

import click
from celery.app.utils import find_app


def find_commands_of_the_app(group_class: Any) -> None:
    """Extend the class of the `celery` group: a command that it does not know may be the app's."""
    get_command, list_commands = group_class.get_command, group_class.list_commands

    def get_any_command(self: click.Group, ctx: click.Context, name: str) -> click.Command | None:
        found: click.Command | None = get_command(self, ctx, name)
        if found is None and ctx.parent is None and _import_app(ctx.params.get("app")):
            found = get_command(self, ctx, name)
        return found

    def list_all_commands(self: click.Group, ctx: click.Context) -> list[str]:
        if ctx.parent is None:
            _import_app(ctx.params.get("app") or _app_of(sys.argv))  # `--help` comes before the options are read
        names: list[str] = list_commands(self, ctx)
        return names

    group_class.get_command, group_class.list_commands = get_any_command, list_all_commands


def _import_app(name: Any) -> bool:
    """Import the app, which adds the commands of its domains; what is wrong with it Celery says better."""
    if not isinstance(name, str):
        return False
    if os.getcwd() not in sys.path:  # noqa: PTH109 - as Celery does it
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    try:
        find_app(name)
    except (ImportError, AttributeError) as error:
        raise click.UsageError(f"the app {name!r} cannot be imported: {error}") from error
    return True


def _app_of(words: list[str]) -> str | None:
    """Return what `-A` or `--app` names on a command line, or the environment."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in {"-A", "--app"}:
            return following or None
        if word.startswith("--app="):
            return word.removeprefix("--app=")
    return os.environ.get("CELERY_APP")
