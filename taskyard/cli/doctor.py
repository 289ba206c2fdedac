"""`celery -A tasks doctor`: problems of this deployment, and how to fix them."""

from dataclasses import asdict

import click

from taskyard.broker.server.client import shared_client
from taskyard.cli.kit.common_options import json_option
from taskyard.cli.kit.exit_codes import FailedError, OperatorCommand
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.text_tables import print_table
from taskyard.database.engine import current_engine
from taskyard.monitor.doctor import examine, shown_settings
from taskyard.settings.loading import current_settings


@click.command("doctor", cls=OperatorCommand)
@click.option("--settings", "with_settings", is_flag=True, help="Also print all settings; secrets are masked.")
@json_option
def command(*, with_settings: bool, as_json: bool) -> None:
    """Check broker, database, scheduler, queues and tasks; exit code 1 if there are problems."""
    settings = current_settings()
    found = examine(shared_client(settings.redis_url), current_engine(), settings)
    shown = shown_settings() if with_settings else None
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found], "settings": shown})
    else:
        print_table(("", "check", "result"), [(each.verdict, each.name, each.note) for each in found])
        for each in found:
            if each.fix:
                click.echo(f"{each.name}: {each.fix}")
        if shown:
            click.echo()
            print_facts(shown)
    faults = [each.name for each in found if each.verdict == "fault"]
    if faults:
        raise FailedError(f"problems: {', '.join(faults)}")
