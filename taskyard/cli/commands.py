"""
The command groups under `celery -A tasks`.

Every `celery` command imports this module, so it imports nothing but Click; a group's own module is loaded when the
group is used. A command without verbs is a `LazyCommand`, called `command` in its module. To
add a group: write a module with a Click group called `group`, name it here and in
`[project.entry-points."celery.commands"]` of pyproject.toml.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taskyard.domain import Domain


class LazyGroup(click.Group):
    """A group whose commands live in a module that is imported when the first of them is wanted."""

    def __init__(self, name: str, module: str, help: str) -> None:  # noqa: A002 - Click's name
        """Prepare; the module has the real group, called `group`."""
        super().__init__(name=name, help=help)
        self.module = module

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return self._group.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name."""
        return self._group.get_command(ctx, cmd_name)

    @property
    def _group(self) -> click.Group:
        module: Any = import_module(self.module)
        group: click.Group = module.group
        return group


class LazyCommand(click.Command):
    """A command without verbs, in a module that is imported when it is wanted."""

    def __init__(self, name: str, module: str, help: str) -> None:  # noqa: A002 - Click's name
        """Prepare; the module has the real command, called `command`."""
        super().__init__(name=name, help=help)
        self.module = module

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Let the command itself read its arguments; it is then what Click invokes."""
        module: Any = import_module(self.module)
        command: click.Command = module.command
        return command.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        return ctx.command.invoke(ctx)


audit = LazyGroup("audit", "taskyard.cli.audit", "Records: write, stats, export, prune, and what operators changed.")
db = LazyGroup("db", "taskyard.cli.db", "The database's schema: upgrade, current.")
dlq = LazyGroup("dlq", "taskyard.cli.dlq.commands", "Dead letters: list, show, run again, discard, export.")
doctor = LazyCommand("doctor", "taskyard.cli.doctor", "What is wrong with this deployment, and how to mend it.")
jobs = LazyGroup("jobs", "taskyard.cli.jobs.commands", "Runs and attempts: list, show, logs, explain, retry, cancel.")
queues = LazyGroup("queues", "taskyard.cli.queues", "Queues: list, pause, limit, peek, drain.")
schedules = LazyGroup(
    "schedules", "taskyard.cli.schedules.commands", "Schedules: list, show, add, edit, pause, run, preview."
)
up = LazyCommand("up", "taskyard.cli.up", "Start workers, beat, Flower and Valkey, and keep them running.")


def add_groups(domains: "Sequence[Domain]") -> None:
    """
    Give the `celery` command the groups of an app's domains.

    Raises:
        ValueError: A group is called like a command of Celery or of ours.
    """
    celery: Any = import_module("celery.bin.celery").celery
    for group in groups_of(domains):
        known = celery.commands.get(group.name)
        if known is not None and not (isinstance(known, LazyGroup) and known.module == group.module):
            raise ValueError(f"command group {group.name!r} of a domain: `celery` has a command of this name")
        celery.add_command(group)


def groups_of(domains: "Sequence[Domain]") -> list[LazyGroup]:
    """Return the command groups of domains."""
    return [LazyGroup(each.name, each.module, each.help) for domain in domains for each in domain.commands]


if "celery.bin.worker" in sys.modules:  # inside the `celery` command
    import_module("taskyard.cli.celery_options").extend_celery_options()
    import_module("taskyard.cli.app_commands").find_commands_of_the_app(sys.modules["celery.bin.celery"].DYMGroup)
