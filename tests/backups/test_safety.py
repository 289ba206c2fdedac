"""A verification changes nothing but its own scratch database, and tells no secret."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import pytest

from tasks.backups.errors import BackupConfigError, InfrastructureError, ScratchRefusedError
from tasks.backups.restore.postgres_programs import PostgresPrograms
from tasks.backups.restore.scratch_database import drop_scratch, scratch_database
from tasks.backups.restore.server_address import parse_address
from tests.backups.backup_target import SHOP_PROFILE, BackupTarget
from tests.backups.shop_server import NAPS, PASSWORD, ShopServer
from tests.databases import BINARIES
from tests.waiting import wait_for


def lay(backup_target: BackupTarget, dump: Path) -> None:
    shutil.copy(dump, backup_target.dumps / "shop.dump")
    backup_target.add_manifest()


@pytest.mark.parametrize("spelling", ["same text", "another name of the host", "through the socket"])
def test_a_live_database_is_refused_whatever_its_address_and_keeps_its_rows(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path], spelling: str
) -> None:
    """By its text only the first of these would be found."""
    places: dict[str, dict[str, Any]] = {
        "same text": {},
        "another name of the host": {"host": "localhost"},
        "through the socket": {"host": None, "query": {"host": str(shop_server.socket_folder)}},
    }
    lay(backup_target, shop_dumps["custom"])
    backup_target.scratch_url = shop_server.url_of("shop")
    backup_target.live = [parse_address(shop_server.url_of("shop", **places[spelling]), "DATABASE_URL")]
    before = shop_server.query("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM customers)", "shop")
    with pytest.raises(ScratchRefusedError, match="DATABASE_URL"):
        backup_target.verify()
    assert shop_server.query("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM customers)", "shop") == before
    (run,) = backup_target.runs()
    assert run.state == "error"
    assert "DATABASE_URL" in str(run.reason)


def test_another_database_of_the_live_server_is_not_refused(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    backup_target.live = [parse_address(shop_server.url_of("shop"), "DATABASE_URL")]
    assert backup_target.verify().state == "passed"


def test_a_live_database_that_is_down_keeps_no_backup_from_being_verified(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    backup_target.live = [parse_address("postgresql://somebody@127.0.0.1:1/shop", "BACKUP_LIVE_DB_URLS")]
    assert backup_target.verify().state == "passed"


@pytest.mark.parametrize("name", ["shop", "postgres", "taskyard_scratch_", "taskyard_scratch_shop_12345678901z", "x;"])
def test_only_a_scratch_database_is_ever_dropped(shop_server: ShopServer, name: str) -> None:
    address = parse_address(shop_server.url_of(), "X")
    with address.connect() as connection, pytest.raises(ScratchRefusedError):
        drop_scratch(connection, name)
    assert shop_server.query("SELECT count(*) FROM orders", "shop") == [(2000,)]


@pytest.mark.parametrize("options", [["--create"], ["--create", "--clean"]])
def test_a_plain_dump_made_with_create_is_restored_into_the_scratch_database_and_nowhere_else(
    backup_target: BackupTarget, shop_server: ShopServer, options: list[str]
) -> None:
    """The program psql obeys such a dump wherever it was told to connect to."""
    with shop_server.changed_shop() as database:
        shop_server.query(f"ALTER DATABASE {database} OWNER TO verifier")  # so that it might be dropped
        shop_server.dump(backup_target.dumps / "shop.sql", database, "plain", *options)
        backup_target.add_manifest()
        assert backup_target.verify().state == "passed"
        assert shop_server.query("SELECT count(*) FROM orders", database) == [(2000,)]


@pytest.mark.parametrize(
    "line",
    [
        r"SELECT 1; \connect {other}",
        r"\! touch {mark}",
        r" \copy customers to '{mark}'",
        "DROP DATABASE {other};",
        " DROP DATABASE {other};",
    ],
)
def test_a_plain_dump_can_neither_command_psql_nor_drop_a_database(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path], tmp_path: Path, line: str
) -> None:
    mark = tmp_path / "mark"
    with shop_server.changed_shop() as other:
        shop_server.query(f"ALTER DATABASE {other} OWNER TO verifier")  # so that it might be dropped
        foreign = line.replace("{mark}", str(mark)).replace("{other}", other)
        text = shop_dumps["plain"].read_text()
        (backup_target.dumps / "shop.sql").write_text(text.replace("CREATE INDEX", f"{foreign}\nCREATE INDEX", 1))
        backup_target.add_manifest()
        assert list(backup_target.failed_checks(backup_target.verify())) == ["restore"]
        assert shop_server.query("SELECT count(*) FROM orders", other) == [(2000,)]
    assert not mark.exists()


def test_the_password_is_in_no_argument_and_no_variable_of_any_process(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    with shop_server.changed_shop(NAPS) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    backup_target.write_profile(SHOP_PROFILE, restore_timeout='"3s"')
    work = threading.Thread(target=backup_target.verify)
    work.start()
    wait_for(lambda: restorers(backup_target), 30, "pg_restore runs")
    shown = subprocess.run(["ps", "axwwe"], capture_output=True, text=True, check=True).stdout
    work.join()
    assert re.search(r"pg_restore .*taskyard_scratch_shop", shown)
    assert not [line for line in shown.splitlines() if PASSWORD in line or str(backup_target.scratch_url) in line]
    assert backup_target.runs()[0].state == "failed"


def test_a_wrong_password_is_an_error_of_the_settings_that_names_the_user_only(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    wrong = "wr0ng-password"
    backup_target.scratch_url = shop_server.url_of(password=wrong)
    with pytest.raises(BackupConfigError) as raised:
        backup_target.verify()
    (run,) = backup_target.runs()
    assert run.state == "error"
    assert 'password authentication failed for user "verifier"' in str(run.reason)
    captured = capfd.readouterr()
    for text in (str(raised.value), str(run.reason), captured.out, captured.err, repr(backup_target.dependencies())):
        assert wrong not in text


def test_a_server_that_is_down_is_an_error_to_be_tried_again_not_a_bad_backup(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    backup_target.scratch_url = "postgresql://verifier:x@127.0.0.1:1/entry"
    with pytest.raises(InfrastructureError, match="Connection refused"):
        backup_target.verify()
    assert [run.state for run in backup_target.runs()] == ["error"]


def test_a_server_that_ends_our_sessions_in_the_restore_is_an_error_not_a_bad_backup(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    with shop_server.changed_shop(NAPS) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            backup_target.verify()
        except InfrastructureError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'taskyard%'"
        " AND application_name = 'pg_restore' AND wait_event = 'PgSleep'"
    )
    wait_for(lambda: shop_server.query(ended), 30, "it restores, and its session is ended")
    thread.join()
    assert raised, "it must be tried again"
    assert [run.state for run in backup_target.runs()] == ["error"]


def test_a_login_that_may_not_make_databases_is_told_so(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    shop_server.query("ALTER ROLE verifier NOCREATEDB")
    try:
        with pytest.raises(BackupConfigError, match="CREATEDB"):
            backup_target.verify()
    finally:
        shop_server.query("ALTER ROLE verifier CREATEDB")


def test_a_scratch_database_is_dropped_whatever_happens_in_it(shop_server: ShopServer) -> None:
    address = parse_address(shop_server.url_of(), "X")
    seen: list[str] = []

    def have_an_accident() -> None:
        with scratch_database(address, "shop", uuid4()) as scratch:
            guests.append(psycopg.connect(shop_server.url_of(scratch.name)))
            seen.extend(shop_server.scratch_databases())
            raise KeyError(scratch.name)

    guests: list[psycopg.Connection] = []
    with pytest.raises(KeyError) as raised:
        have_an_accident()
    assert seen == list(raised.value.args)
    assert shop_server.scratch_databases() == []
    guests[0].close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://a:hidden@b/c", "postgresql://a:hidden@b:port/c", "redis://a:hidden@b"]
)
def test_a_malformed_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(BackupConfigError, match="BACKUP_EPHEMERAL_DB_URL") as raised:
        parse_address(url, "BACKUP_EPHEMERAL_DB_URL")
    assert "hidden" not in str(raised.value)


def test_missing_programs_are_named_with_the_setting_that_helps(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], tmp_path: Path
) -> None:
    lay(backup_target, shop_dumps["custom"])
    backup_target.programs = PostgresPrograms(tmp_path)
    with pytest.raises(BackupConfigError, match=r"pg_restore not found.*BACKUP_PG_BIN"):
        backup_target.verify()


def test_a_program_that_does_not_run_says_nothing_about_the_backup(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    backup_target.programs = PostgresPrograms(BINARIES, (sys.executable, "-c", "raise SystemExit('out of order')"))
    with pytest.raises(InfrastructureError, match="out of order"):
        backup_target.verify()
    backup_target.programs = PostgresPrograms(BINARIES, (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(InfrastructureError, match="signal 9"):
        backup_target.verify()


def restorers(backup_target: BackupTarget) -> list[psutil.Process]:
    """The programs that restore into a scratch database of this target now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "pg_restore" in command and str(backup_target.dumps) in command:
            found.append(process)
    return found
