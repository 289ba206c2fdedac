"""`celery -A tasks backups`: what cron users get, and what they are told when something is wrong."""

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.backups.backup_target import SHOP_PROFILE, BackupTarget, environment
from tests.backups.shop_server import PASSWORD, ShopServer
from tests.commands import command_of
from tests.workers import ROOT

type Command = Callable[..., Result]


def celery(backup_target: BackupTarget, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, with no other settings than the target's."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "backups", *arguments]
    env = {**environment(backup_target, **more), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def command(backup_target: BackupTarget, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The same in this process, which is quicker: `command("verify", BACKUP_PROFILES="")`."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str, **more: str) -> Result:
        for name, value in environment(backup_target, **more).items():
            monkeypatch.setenv(name, value)
        forget()
        return CliRunner().invoke(command_of("backups"), arguments)

    yield run
    forget()
    root.handlers[:], root.level = handlers, level


def forget() -> None:
    """Let settings and engine be read anew."""
    if current_engine.cache_info().currsize:
        current_engine().dispose()
    current_settings.cache_clear()
    current_engine.cache_clear()


@pytest.fixture
def good(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> BackupTarget:
    shutil.copy(shop_dumps["custom"], backup_target.dumps / "shop.dump")
    backup_target.add_manifest()
    return backup_target


def test_cron_users_get_exit_code_0_for_a_good_backup_and_1_for_a_bad_one(good: BackupTarget, command: Command) -> None:
    fine = celery(good, "verify")
    assert fine.returncode == 0, fine.stderr
    assert "passed" in fine.stdout
    (good.dumps / "shop.dump").write_bytes(b"PGDMP nonsense")
    bad = celery(good, "verify", "shop", "--json")
    assert bad.returncode == 1
    (item,) = json.loads(bad.stdout)["items"]
    assert (item["target"], item["state"]) == ("shop", "failed")
    assert "Error: shop failed: size: " in bad.stderr
    listed = json.loads(command("history", "shop", "--json").stdout)["items"]
    assert [row["state"] for row in listed] == ["failed", "passed"]
    shown = command("show", item["run_id"])
    assert shown.exit_code == 0
    assert re.search(r"checksum +FAILED +shop.dump: not the bytes that were written", shown.stdout)
    figures = command("metrics").stdout
    assert 'taskyard_backup_passed{target="shop"} 0.0' in figures
    assert re.search(r'taskyard_backup_last_good_seconds\{target="shop"\} \d+\.\d+', figures)


def test_no_output_shows_the_password(good: BackupTarget, shop_server: ShopServer) -> None:
    outputs = [celery(good, "verify", "-v")]
    good.scratch_url = shop_server.url_of(password="wr0ng-password")
    outputs.append(celery(good, "verify", "-v"))
    assert [output.returncode for output in outputs] == [0, 1]
    assert "password authentication failed" in outputs[-1].stderr
    for output in outputs:
        assert PASSWORD not in output.stdout + output.stderr
        assert "wr0ng-password" not in output.stdout + output.stderr


def test_the_older_settings_alone_verify_a_dump(good: BackupTarget, command: Command) -> None:
    older = {"BACKUP_PROFILES": "", "BACKUP_DUMP_PATH": str(good.dumps / "*.dump"), "BACKUP_SMOKE_TIMEOUT_MS": "5000"}
    done = command("verify", "--json", **older)
    assert done.exit_code == 0, done.stderr
    (run,) = good.runs()
    assert (run.target, run.state) == ("default", "passed")
    assert run.facts["rows"] == {"public.alembic_version": 1, "public.customers": 1000, "public.orders": 2000}


@pytest.mark.usefixtures("good")
def test_profiles_are_listed_with_their_newest_run(command: Command) -> None:
    assert command("verify").exit_code == 0
    (item,) = json.loads(command("profiles", "--json").stdout)["items"]
    assert (item["target"], item["kind"], item["newest_run"]["state"]) == ("shop", "postgresql", "passed")
    assert "passed" in command("profiles").stdout


@pytest.mark.parametrize(
    ("arguments", "more", "code", "said"),
    [
        (["verify", "nothing"], {}, 3, "no backup profile 'nothing'; known: shop"),
        (["verify"], {"BACKUP_PROFILES": ""}, 2, "set BACKUP_PROFILES"),
        (["verify"], {"BACKUP_PROFILES": "/nonexistent"}, 2, "BACKUP_PROFILES: no *.toml"),
        (["verify"], {"BACKUP_EPHEMERAL_DB_URL": "nonsense"}, 2, "BACKUP_EPHEMERAL_DB_URL: not a PostgreSQL URL"),
        (["verify"], {"BACKUP_EPHEMERAL_DB_URL": ""}, 1, "BACKUP_EPHEMERAL_DB_URL is not set"),
        (["verify"], {"BACKUP_SMOKE_TIMEOUT_MS": "-5"}, 2, "BACKUP_SMOKE_TIMEOUT_MS"),
        (["verify"], {"BACKUP_PROFILE": "1"}, 2, "BACKUP_PROFILE: "),
        (["history", "nosuch"], {}, 3, "no backup target 'nosuch'"),
        (["show", "nonsense"], {}, 2, "is not an id"),
        (["show", "00000000-0000-0000-0000-000000000000"], {}, 3, "no backup run"),
        (["history", "--state", "odd"], {}, 2, "odd"),
        (["history", "--after", "odd"], {}, 2, "odd"),
    ],
)
def test_bad_input_gets_a_clear_line_and_its_exit_code(
    command: Command, arguments: list[str], more: dict[str, str], code: int, said: str
) -> None:
    done = command(*arguments, **more)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert "Traceback" not in done.output


def test_a_wrong_profile_is_named_before_anything_is_done(backup_target: BackupTarget, command: Command) -> None:
    (backup_target.folder / "shop.toml").write_text(SHOP_PROFILE + "oops = 1\n")
    for verb in ("verify", "profiles"):
        done = command(verb)
        assert done.exit_code == 2
        assert "shop.toml: assertions.0.oops: Extra inputs are not permitted" in done.stderr
    assert backup_target.runs() == []


def test_one_target_that_cannot_be_verified_keeps_no_other_from_it(good: BackupTarget, command: Command) -> None:
    other = SHOP_PROFILE.replace('kind = "postgresql"', 'kind = "sqlite"').replace(
        'pattern = "shop*"', 'pattern = "no"'
    )
    (good.folder / "a-file.toml").write_text(other)
    done = command("verify", "--json", BACKUP_EPHEMERAL_DB_URL="postgresql://x@127.0.0.1:1/entry")
    assert (done.exit_code, "failed" in done.stdout) == (1, True), done.output
    states = {item["target"]: item["state"] for item in json.loads(done.stdout)["items"]}
    assert states == {"a-file": "failed", "shop": "error"}


@pytest.mark.parametrize("verb", ["", "verify", "history", "show", "profiles", "metrics"])
def test_every_help_ends_well(verb: str) -> None:
    done = CliRunner().invoke(command_of("backups"), [*filter(None, [verb]), "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.stdout


def test_keep_leaves_the_database_of_a_failed_run_and_shows_what_the_restore_said(
    backup_target: BackupTarget, shop_server: ShopServer, command: Command
) -> None:
    with shop_server.changed_shop("DELETE FROM orders") as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    done = command("verify", "shop", "--keep")
    assert (done.exit_code, "failed" in done.stdout) == (1, True), done.output
    (kept,) = [name for name in shop_server.scratch_databases() if name.startswith("taskyard_kept_shop_")]
    try:
        assert shop_server.query("SELECT count(*) FROM customers", kept) == [(1000,)]
        assert kept in str(backup_target.runs()[0].checks)
        command("verify", "shop")
        assert shop_server.scratch_databases() == [kept], "no later run drops it"
    finally:
        shop_server.query(f"DROP DATABASE {kept}")


def test_a_target_that_another_run_verifies_is_skipped_with_exit_code_0(good: BackupTarget, command: Command) -> None:
    good.store().take_lease("shop", "another")
    done = command("verify", "shop")
    assert (done.exit_code, "skipped" in done.stdout) == (0, True)
