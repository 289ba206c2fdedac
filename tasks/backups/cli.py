"""`celery -A tasks backups`: verify backups, and read the results of earlier runs."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import click
from sqlmodel import col

from config.settings import BackupSettings
from tasks.backups.dependencies import VerifyDependencies
from tasks.backups.errors import BackupConfigError, InfrastructureError, UnknownTargetError
from tasks.backups.handlers import VerificationResult
from tasks.backups.handlers import verify as verify_one
from tasks.backups.metrics import as_prometheus, figures
from tasks.backups.models import STATES, BackupRun
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import find_profile, open_profiles
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.queries import BackupFilter, find_backup, list_backups, newest_of_each
from tasks.backups.tasks import enqueue, open_dependencies
from taskyard.cli.kit.common_options import change_options, json_option, page_options, since_option, until_option
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import IdParam
from taskyard.cli.kit.output import milliseconds, print_facts, print_json
from taskyard.cli.kit.recorded_changes import recorded_transaction
from taskyard.cli.kit.tables import print_table
from taskyard.database.engine import open_session
from taskyard.logging import configure_logging
from taskyard.settings import current_settings

LISTED = tuple(name for name in BackupRun.model_fields if name not in {"checks", "facts"})


@click.group("backups")
def group() -> None:
    """Backup verification: verify, history, show, profiles, metrics."""


@group.command("verify", cls=OperatorCommand)
@click.argument("targets", nargs=-1)
@click.option(
    "--new-baseline", is_flag=True, help="Do not compare with the last good run, for data that shrank on purpose."
)
@click.option("--keep", is_flag=True, help="Keep the scratch database of a failed run, and show the restore's output.")
@click.option("--enqueue", "is_queued", is_flag=True, help="Enqueue it for a worker instead of running it here.")
@change_options
@json_option
def verify(  # noqa: PLR0913 - an option each
    *, targets: tuple[str, ...], new_baseline: bool, keep: bool, is_queued: bool, reason: str, as_json: bool
) -> None:
    """
    Verify the newest backup of each TARGET, or of all profiles.

    Runs in this process and needs no worker. Exit code 0: all passed, or were skipped
    because another run verifies them; 1: one failed or could not be
    verified; 2: a setting or profile is wrong; 3: no such target.
    """
    settings = current_settings(BackupSettings)
    configure_logging(current_settings())  # to stderr: stdout is for the answer
    with _clear_errors():
        dependencies = open_dependencies(settings)
        names = [find_profile(dict(dependencies.profiles), name).target for name in targets] or sorted(
            dependencies.profiles
        )
    if keep and is_queued:
        raise click.UsageError("--keep works in this process only; leave out --enqueue")
    if keep:
        dependencies = replace(dependencies, keeps_failed=True, show=lambda text: click.echo(text, err=True, nl=False))
    payloads = [VerifyBackup(target=name, is_new_baseline=new_baseline) for name in dict.fromkeys(names)]
    with recorded_transaction("backups verify", reason=reason, facts={"targets": list(dict.fromkeys(names))}):
        pass  # its runs are rows of their own
    if is_queued:
        runs = [{"target": payload.target, "task_id": enqueue(payload)} for payload in payloads]
        _print(runs, as_json=as_json)
        return
    holder = f"cli:{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    found = [_verify(payload, dependencies, holder) for payload in payloads]
    _print([result.model_dump() for result in found], as_json=as_json)
    bad = [result for result in found if result.state not in {"passed", "skipped"}]
    if bad:
        raise FailedError("; ".join(f"{result.target} {result.state}: {result.reason}" for result in bad))


@group.command("history", cls=OperatorCommand)
@click.argument("target", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@since_option
@until_option
@page_options
@json_option
def history(*, limit: int, after: str | None, as_json: bool, **filters: Any) -> None:
    """List runs, newest first, of one TARGET or of all."""
    with open_session() as session:
        page = list_backups(session, BackupFilter(**filters), limit=limit, after=after)
        target = filters["target"]
        if target and not page.rows and target not in {*newest_of_each(session), *_profile_names()}:
            raise NotFoundError(f"no backup target {target!r}: neither a profile nor a run")
    if as_json:
        print_json({"items": [_facts(row, LISTED) for row in page.rows], "next": page.after})
        return
    columns = ("run", "target", "state", "started (UTC)", "took", "dump", "bytes", "reason")
    print_table(columns, [_row(row) for row in page.rows])
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("show", cls=OperatorCommand)
@click.argument("run_id", type=IdParam("backup run", col(BackupRun.id)))
@json_option
def show(*, run_id: UUID, as_json: bool) -> None:
    """Show one run with all its checks."""
    with open_session() as session:
        row = find_backup(session, run_id)
    if row is None:
        raise NotFoundError(f"no backup run {run_id}")
    if as_json:
        print_json(_facts(row, tuple(BackupRun.model_fields)))
        return
    print_facts({name: value for name, value in _facts(row, LISTED).items() if value is not None})
    click.echo()
    checks = [(check["name"], "passed" if check["passed"] else "FAILED", check["detail"]) for check in row.checks or []]
    print_table(("check", "result", "detail"), checks)


@group.command("profiles", cls=OperatorCommand)
@json_option
def profiles(*, as_json: bool) -> None:
    """Validate all profiles and list them, each with its newest run."""
    with _clear_errors():
        known = open_profiles(current_settings(BackupSettings))
    with open_session() as session:
        newest = newest_of_each(session)
    if as_json:
        print_json({"items": [_profile(profile, newest.get(name)) for name, profile in sorted(known.items())]})
        return
    columns = ("target", "kind", "dumps", "tables", "assertions", "newest run", "started (UTC)")
    rows = []
    for name, profile in sorted(known.items()):
        last = newest.get(name)
        counts = (len(profile.tables), len(profile.assertions))
        seen = (last.state, last.started_at) if last else (None, None)
        rows.append((name, profile.kind, f"{profile.folder}/{profile.pattern}", *counts, *seen))
    print_table(columns, rows)


@group.command("metrics", cls=OperatorCommand)
def metrics() -> None:
    """Print metrics in Prometheus' text format, for a textfile collector."""
    with open_session() as session:
        click.echo(as_prometheus(figures(session)), nl=False)


def _profile_names() -> set[str]:
    try:
        return set(open_profiles(current_settings(BackupSettings)))
    except BackupConfigError:
        return set()


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn configuration errors into their exit codes."""
    try:
        yield
    except UnknownTargetError as error:
        raise NotFoundError(str(error)) from error
    except BackupConfigError as error:
        raise click.UsageError(str(error)) from error


def _verify(payload: VerifyBackup, dependencies: VerifyDependencies, holder: str) -> VerificationResult:
    """Verify one target; an error becomes a result, so that the other targets are still verified."""
    try:
        return verify_one(payload, dependencies, holder)
    except (BackupConfigError, InfrastructureError) as error:
        return VerificationResult(target=str(payload.target), state="error", reason=str(error))


def _print(items: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"items": items})
    else:
        print_table(tuple(items[0]), [tuple(item.values()) for item in items])


def _facts(row: BackupRun, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _row(row: BackupRun) -> tuple[Any, ...]:
    took = milliseconds(row.duration_ms)
    return (row.id, row.target, row.state, row.started_at, took, row.dump, row.dump_bytes, row.reason)


def _profile(profile: BackupProfile, last: BackupRun | None) -> dict[str, Any]:
    shown = profile.model_dump(mode="json", by_alias=True)
    return {**shown, "newest_run": _facts(last, ("id", "state", "started_at", "reason")) if last else None}
