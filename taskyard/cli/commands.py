"""
The command groups under `celery -A tasks`.

Every `celery` command imports this module, so it imports nothing but Click; a group's own module is loaded when the
group is used. A command without verbs is a `LazyCommand`, called `command` in its module. To
add a group: write `cli/<name>.py` with a Click group called `group`, name it here and in
`[project.entry-points."celery.commands"]` of pyproject.toml.
"""

import sys
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands live in a module that is imported when the first of them is wanted."""

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - Click's name
        super().__init__(name=name, help=help)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return self._group.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name."""
        return self._group.get_command(ctx, cmd_name)

    @property
    def _group(self) -> click.Group:
        module: Any = import_module(f"cli.{self.name}")
        group: click.Group = module.group
        return group


class LazyCommand(click.Command):
    """A command without verbs, in a module that is imported when it is wanted."""

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - Click's name
        super().__init__(name=name, help=help)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Let the command itself read its arguments; it is then what Click invokes."""
        module: Any = import_module(f"cli.{self.name}")
        command: click.Command = module.command
        return command.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        return ctx.command.invoke(ctx)


audit = LazyGroup("audit", "Records: write, stats, export, prune, and what operators changed.")
backups = LazyGroup("backups", "Backup verification: verify, history, show, profiles, metrics.")
db = LazyGroup("db", "The database's schema: upgrade, current.")
dlq = LazyGroup("dlq", "Dead letters: list, show, run again, discard, export.")
doctor = LazyCommand("doctor", "What is wrong with this deployment, and how to mend it.")
jobs = LazyGroup("jobs", "Runs and their attempts: list, show, logs, tail, explain, retry, cancel.")
markets = LazyGroup("markets", "Prediction markets: resolve, status, conflicts.")
queues = LazyGroup("queues", "Queues: list, pause, limit, peek, drain.")
recon = LazyGroup("recon", "Reconciliation with the chain: run, report, drifts.")
schedules = LazyGroup("schedules", "Schedules: list, show, add, edit, pause, resume, run, remove, preview.")
up = LazyCommand("up", "Start the whole platform and keep it running: workers, beat, Flower, Valkey.")
webhooks = LazyGroup("webhooks", "Webhooks: endpoints, deliveries, send again.")

if "celery.bin.worker" in sys.modules:  # inside the `celery` command
    import_module("taskyard.cli.pools").take_pools_at_their_word()
