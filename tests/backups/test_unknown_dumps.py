"""What keeps us from looking at a dump is an error with its reason; only what the dump proves is a failure."""

import bz2
import gzip
import lzma
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.backups.dumps.dump_search import find_dumps
from tasks.backups.errors import BackupConfigError, InfrastructureError
from tests.backups.backup_target import SHOP_PROFILE, BackupTarget
from tests.backups.shop_server import ShopServer
from tests.backups.test_postgres_backups import lay

NOBODY = 65_534


@pytest.fixture(scope="session")
def older_binaries() -> Path:
    """The programs of an older PostgreSQL, from Debian's package."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_restore"))
    if not found:
        reason = "no older PostgreSQL is installed (apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found[0].parent


@pytest.fixture(scope="session")
def older_server(older_binaries: Path) -> Iterator[ShopServer]:
    server = ShopServer(binaries=older_binaries)
    try:
        yield server.start()
    finally:
        server.remove()


def test_a_tool_that_is_too_old_is_an_error_that_names_the_versions(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], older_binaries: Path
) -> None:
    lay(backup_target, shop_dumps["custom"])
    backup_target.programs = type(backup_target.programs)(older_binaries)
    with pytest.raises(BackupConfigError, match=r"unsupported version.*pg_dump 18\..*pg_restore 1\d\."):
        backup_target.verify()
    assert [run.state for run in backup_target.runs()] == ["error"]


@pytest.mark.parametrize("kind", ["custom", "plain"])
def test_a_scratch_server_that_is_too_old_is_an_error_that_names_the_versions(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], older_server: ShopServer, kind: str
) -> None:
    lay(backup_target, shop_dumps[kind])
    backup_target.scratch_url = older_server.url_of()
    with pytest.raises(BackupConfigError, match=r"transaction_timeout.*server 18\..*scratch server 1\d\."):
        backup_target.verify()
    assert older_server.scratch_databases() == []


def test_an_extension_that_the_scratch_server_lacks_is_an_error_that_names_it(
    backup_target: BackupTarget, older_server: ShopServer
) -> None:
    """The server of the tests has no pgcrypto; Debian's has."""
    changes = [
        "CREATE EXTENSION pgcrypto",
        "ALTER TABLE orders ADD code uuid DEFAULT public.gen_random_bytes(4)::text::uuid",
    ]
    with older_server.changed_shop(changes[0], "CREATE VIEW codes AS SELECT public.gen_salt('bf')") as database:
        older_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    with pytest.raises(BackupConfigError, match=r"gen_salt.*left out: EXTENSION pgcrypto"):
        backup_target.verify()


def test_a_folder_that_is_not_there_is_an_error_and_an_empty_one_a_failure(backup_target: BackupTarget) -> None:
    assert backup_target.verify().state == "failed"
    backup_target.write_profile(SHOP_PROFILE, folder='"not-mounted"')
    with pytest.raises(InfrastructureError, match="No such file or directory"):
        backup_target.verify()


def test_a_folder_that_cannot_be_read_is_an_error(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    lay(backup_target, shop_dumps["custom"])
    profile = backup_target.profile()
    backup_target.dumps.chmod(0o000)
    with _as_nobody(), pytest.raises(InfrastructureError, match="Permission denied"):
        find_dumps(profile)


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"PK\x03\x04", b"\x7fELF\x00\x00"])
def test_a_format_that_is_not_known_is_an_error(backup_target: BackupTarget, magic: bytes) -> None:
    (backup_target.dumps / "shop.dump").write_bytes(magic + b"x" * 1000)
    backup_target.add_manifest()
    with pytest.raises(BackupConfigError, match=r"shop\.dump is"):
        backup_target.verify()


@pytest.mark.parametrize(
    ("kind", "compress"), [("custom", gzip.compress), ("tar", lzma.compress), ("plain", bz2.compress)]
)
def test_a_compressed_dump_of_any_format_passes_and_fails_when_it_was_cut_off(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], kind: str, compress: object
) -> None:
    assert callable(compress)
    packed = compress(shop_dumps[kind].read_bytes())
    place = backup_target.dumps / "shop.dump.packed"
    place.write_bytes(packed)
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    assert backup_target.verify().state == "passed"
    place.write_bytes(packed[: len(packed) * 9 // 10])
    assert backup_target.verify().state == "failed"


def test_one_database_of_a_dump_of_all_is_restored(backup_target: BackupTarget, shop_server: ShopServer) -> None:
    shop_server.dump_all(backup_target.dumps / "shop-all.sql")
    backup_target.add_manifest()
    with pytest.raises(BackupConfigError, match="name one in the profile"):
        backup_target.verify()
    backup_target.write_profile(SHOP_PROFILE, database='"shop"')
    assert backup_target.verify().state == "passed"
    backup_target.write_profile(SHOP_PROFILE, database='"nosuch"')
    assert "no database 'nosuch'" in backup_target.failed_checks(backup_target.verify())["restore"]


def test_a_dump_that_still_grows_is_waited_for_but_not_for_ever(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    place, content = backup_target.dumps / "shop.dump", shop_dumps["custom"].read_bytes()
    place.write_bytes(content[:1000])
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"', stable_for='"1s"', stable_within='"60s"')
    stopped = threading.Event()

    def write() -> None:
        with place.open("ab") as file:
            for begin in range(1000, len(content), 20_000):
                file.write(content[begin : begin + 20_000])
                file.flush()
                stopped.wait(0.3)

    writer = threading.Thread(target=write)
    writer.start()
    assert backup_target.verify().state == "passed"
    writer.join()
    assert backup_target.runs()[0].dump_bytes == len(content)
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"', stable_for='"2s"', stable_within='"1s"')
    os.utime(place)
    with pytest.raises(InfrastructureError, match="still being written"):
        backup_target.verify()


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may read everything; it gives this up for a moment."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
