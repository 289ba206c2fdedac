"""What the demo prints at its end: the table, and where to look further."""

from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from scripts.demo.environment import ATTEMPTS
from scripts.demo.receivers import FAILURES
from scripts.demo.show import Outcome
from taskyard.cli.kit.output import milliseconds

EXPLAINED = {
    "good": "answers 200",
    "fails twice": f"500 for the first {FAILURES} requests of each event, then 200",
    "always down": f"503 to all {ATTEMPTS} attempts, then a dead letter",
}


def print_table(console: Console, outcome: Outcome) -> None:
    """Print one row per receiver, and the sums."""
    tallies = outcome.tallies
    title = f"All deliveries settled in {outcome.took.total_seconds():.1f} s"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("receiver")
    for heading in ("delivered", "retried", "dead\nletters", "requests", "genuine", "p50", "p99"):
        table.add_column(heading, justify="right")
    for one in tallies:
        counts = (one.delivered, one.retried, one.exhausted, one.requests, one.requests - len(one.faults))
        table.add_row(one.name, *map(str, counts), _length(one.p50), _length(one.p99))
    table.add_section()
    delivered, retried = sum(one.delivered for one in tallies), sum(one.retried for one in tallies)
    requests, faults = sum(one.requests for one in tallies), sum(len(one.faults) for one in tallies)
    table.add_row("all", *map(str, (delivered, retried, outcome.dead_letters, requests, requests - faults)), "", "")
    console.print(table)
    runs = ", ".join(f"{count} {state}" for state, count in sorted(outcome.runs.items()))
    console.print(f"recorded by the audit: runs of webhooks.deliver: {runs}", highlight=False)
    for name, explained in EXPLAINED.items():
        console.print(f"{name}: {explained}", style="dim", highlight=False)
    console.print("genuine: accepted by the independent package standardwebhooks", style="dim", highlight=False)
    console.print("p50, p99: from just before emit() to an event's first request", style="dim", highlight=False)


def print_ways_on(console: Console, script: Path, flower_url: str | None) -> None:
    """Print what to look at next; `flower_url` None: nothing runs any more."""
    console.print("\n[bold]Look further[/bold] (in another terminal)" if flower_url else "\n[bold]Look further[/bold]")
    if flower_url:
        console.print(f"  Flower: {flower_url}", soft_wrap=True, highlight=False)
    commands = [
        f". {script}",
        "export PATH=$PWD/.venv/bin:$PATH",
        "celery -A tasks webhooks endpoints ls",
        "celery -A tasks webhooks deliveries ls --state exhausted",
        "celery -A tasks jobs ls --state failed",
        "celery -A tasks dlq ls",
        "celery -A tasks backups history",
        "celery -A tasks markets status sample-000",
        "celery -A tasks recon drifts",
        "celery -A tasks flows ls",
    ]
    if flower_url:
        commands.append("celery -A tasks webhooks send-test ENDPOINT")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True, highlight=False)
    if not flower_url:
        console.print("  make demo KEEP=1        # leaves worker, beat and Flower up until Ctrl-C", highlight=False)


def _length(span: timedelta | None) -> str:
    return milliseconds(None if span is None else round(span / timedelta(milliseconds=1)))
