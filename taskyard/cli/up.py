"""`celery -A tasks up`: start the whole platform."""

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
from taskyard.launch.children import CeleryProcess, ManagedProcess, ValkeyProcess
from taskyard.launch.embedded_server import FolderInUseError, embedded_valkey
from taskyard.launch.log_prefixes import LogPrefixer
from taskyard.launch.nonblocking_log import NonBlockingLog, nonblocking_stderr
from taskyard.launch.programs import programs
from taskyard.launch.restart_backoff import RestartBackoff
from taskyard.launch.startup_signals import StoppedDuringStartup, stop_on_signal
from taskyard.launch.supervisor import ProcessSupervisor
from taskyard.logging import configure_logging, wants_colour, writes_json
from taskyard.migrations import schema
from taskyard.settings.loading import current_settings, is_broker_given
from taskyard.settings.platform import Settings
from taskyard.tasks.current_app import current_app
from taskyard.tasks.platform_identity import claim_broker
from taskyard.tasks.start_checks import check_settings

log = structlog.get_logger(__name__)


@click.command("up", cls=OperatorCommand)
@click.option("--flower/--no-flower", default=True, help="Also start Flower (FLOWER_ADDRESS, FLOWER_PORT).")
@click.pass_context
def command(ctx: click.Context, *, flower: bool) -> None:
    """
    Start workers, beat, Flower and, without REDIS_URL, a Valkey server, and keep them running.

    Ctrl-C or SIGTERM stops them in order; a second one hurries the workers, a third one kills all.
    """
    app = ctx.find_root().params.get("app")
    with nonblocking_stderr() as log_stream:
        try:
            with stop_on_signal():
                succeeded = _run(app if isinstance(app, str) else None, log_stream, flower=flower)
        except StoppedDuringStartup as stop:
            log.info("up.stopped", signal=stop.number.name, note="stopped before any process was started")
            return
        if not succeeded:
            log.error("up.failed", note="a process crashed too often or had to be killed; see the log above")
            ctx.exit(FAILED)


def _run(app: str | None, log_stream: NonBlockingLog, *, flower: bool) -> bool:
    settings = current_settings()
    configure_logging(settings)
    current_app().loader.import_default_modules()
    check_settings()
    as_json = log_stream.as_json = writes_json(settings)
    _prepare_database(settings)
    environment = {"LOG_FORMAT": "json" if as_json else "console"}
    with ExitStack() as stack:
        children: list[ManagedProcess] = []
        if not is_broker_given():
            valkey = _start_valkey(settings, stack)
            environment["REDIS_URL"] = valkey.url
            children.append(ValkeyProcess(valkey))
        claim_broker(environment.get("REDIS_URL"))
        if flower:
            environment |= _flower_access()
        programs_to_run = programs(app, settings, environment, flower=flower)
        names = [program.name for program in programs_to_run]
        printer = LogPrefixer(names, sys.stderr, as_json=as_json, in_colour=not as_json and wants_colour())
        children += [CeleryProcess(program, printer) for program in programs_to_run]
        return asyncio.run(_supervise(children, settings))


def _start_valkey(settings: Settings, stack: ExitStack) -> EmbeddedValkey:
    try:
        valkey = stack.enter_context(embedded_valkey(settings.taskyard_data / "valkey"))
    except (FolderInUseError, ServerStartError) as error:
        raise FailedError(str(error)) from error
    log.info("up.valkey", url=valkey.url, note="commands with the same TASKYARD_DATA find it; for others set REDIS_URL")
    return valkey


async def _supervise(children: list[ManagedProcess], settings: Settings) -> bool:
    pause, limit = settings.worker_restart_delay, settings.worker_restart_limit
    return await ProcessSupervisor(children, lambda: RestartBackoff(pause, limit)).run()


def _prepare_database(settings: Settings) -> None:
    """Migrate the default database; one named by DATABASE_URL is the operator's to upgrade."""
    if "database_url" not in settings.model_fields_set:
        Path(settings.taskyard_data).mkdir(parents=True, exist_ok=True)
        schema.upgrade(current_engine())
    elif not schema.is_current(current_engine()):
        raise FailedError("the database schema is not up to date; run: celery -A tasks db upgrade")


def _flower_access() -> dict[str, str]:
    """Return Flower's address and password; a generated password is printed once and never logged_change."""
    access = {"FLOWER_ADDRESS": os.environ.get("FLOWER_ADDRESS", "127.0.0.1")}
    if not os.environ.get("FLOWER_BASIC_AUTH"):
        password = secrets.token_urlsafe(12)
        access["FLOWER_BASIC_AUTH"] = f"taskyard:{password}"
        port = os.environ.get("FLOWER_PORT", "5555")
        click.echo(f"Flower: http://{access['FLOWER_ADDRESS']}:{port} user taskyard, password {password}")
    return access
