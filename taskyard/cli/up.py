"""`celery -A tasks up`: the whole platform in one command."""

import asyncio
import os
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path

import click
import structlog

from taskyard.broker.server.valkey import EmbeddedValkey, ServerStartError
from taskyard.cli.kit.exit_codes import FAILED, FailedError, OperatorCommand
from taskyard.database.engine import current_engine
from taskyard.launch.children import Child, ProgramChild, ValkeyChild
from taskyard.launch.early_signals import EndedEarly, ending_early
from taskyard.launch.embedded_server import FolderInUseError, embedded_valkey
from taskyard.launch.log_outlet import Outlet, patient_stderr
from taskyard.launch.printing import Printer
from taskyard.launch.process_keeper import Keeper
from taskyard.launch.programs import programs
from taskyard.launch.restarts import Restarts
from taskyard.logging import configure_logging, wants_colour, writes_json
from taskyard.migrations import schema
from taskyard.settings.loading import current_settings
from taskyard.settings.platform import Settings
from taskyard.tasks.current_app import current_app
from taskyard.tasks.start_checks import check_settings

log = structlog.get_logger(__name__)


@click.command("up", cls=OperatorCommand)
@click.option("--flower/--no-flower", default=True, help="Start Flower, too (FLOWER_ADDRESS, FLOWER_PORT).")
@click.pass_context
def command(ctx: click.Context, *, flower: bool) -> None:
    """
    Start workers, beat, Flower and, without REDIS_URL, a Valkey; keep them running.

    Ctrl-C or SIGTERM ends them in order, a second one hurries the workers, a third one kills.
    """
    app = ctx.find_root().params.get("app")
    with patient_stderr() as outlet:
        try:
            with ending_early():
                went_well = _run(app if isinstance(app, str) else None, outlet, flower=flower)
        except EndedEarly as end:
            log.info("up.ended", signal=end.number.name, note="before anything was started")
            return
        if not went_well:
            log.error("up.failed", note="a process did not stay up or had to be killed; the log above says which")
            ctx.exit(FAILED)


def _run(app: str | None, outlet: Outlet, *, flower: bool) -> bool:
    settings = current_settings()
    configure_logging(settings)
    current_app().loader.import_default_modules()
    check_settings()
    as_json = outlet.as_json = writes_json(settings)
    _prepare_database(settings)
    environment = {"LOG_FORMAT": "json" if as_json else "console"}
    with ExitStack() as stack:
        children: list[Child] = []
        if "redis_url" not in settings.model_fields_set:
            valkey = _start_valkey(settings, stack)
            environment["REDIS_URL"] = valkey.url
            children.append(ValkeyChild(valkey))
        if flower:
            environment |= _flower_access()
        chosen = programs(app, settings, environment, flower=flower)
        names = [program.name for program in chosen]
        printer = Printer(names, sys.stderr, as_json=as_json, in_colour=not as_json and wants_colour())
        children += [ProgramChild(program, printer) for program in chosen]
        return asyncio.run(_keep(children, settings))


def _start_valkey(settings: Settings, stack: ExitStack) -> EmbeddedValkey:
    try:
        valkey = stack.enter_context(embedded_valkey(settings.taskyard_data / "valkey"))
    except (FolderInUseError, ServerStartError) as error:
        raise FailedError(str(error)) from error
    log.info("up.valkey", url=valkey.url, note="other commands find it with this REDIS_URL")
    return valkey


async def _keep(children: list[Child], settings: Settings) -> bool:
    pause, limit = settings.worker_restart_delay, settings.worker_restart_limit
    return await Keeper(children, lambda: Restarts(pause, limit)).run()


def _prepare_database(settings: Settings) -> None:
    """Make the tables of the default database; one that was given is the operator's to upgrade."""
    if "database_url" not in settings.model_fields_set:
        Path(settings.taskyard_data).mkdir(parents=True, exist_ok=True)
        schema.upgrade(current_engine())
    elif not schema.is_current(current_engine()):
        raise FailedError("the database's schema is not the newest; run: celery -A tasks db upgrade")


def _flower_access() -> dict[str, str]:
    """Flower listens on loopback and asks for a password; one that we make up is printed once, and never logged."""
    access = {"FLOWER_ADDRESS": os.environ.get("FLOWER_ADDRESS", "127.0.0.1")}
    if not os.environ.get("FLOWER_BASIC_AUTH"):
        password = secrets.token_urlsafe(12)
        access["FLOWER_BASIC_AUTH"] = f"taskyard:{password}"
        port = os.environ.get("FLOWER_PORT", "5555")
        click.echo(f"Flower: http://{access['FLOWER_ADDRESS']}:{port} user taskyard, password {password}")
    return access
