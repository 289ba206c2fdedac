"""A good backup passes; each kind of bad one fails for its own reason."""

import gzip
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.backups.backup_target import SHOP_PROFILE, BackupTarget, flip_bytes, make_older
from tests.backups.shop_server import CUSTOMERS, NAPS, ORDERS, ShopServer


def lay(backup_target: BackupTarget, dump: Path, name: str = "shop.dump") -> Path:
    """Copy a dump into the target's folder, with its manifest."""
    place = backup_target.dumps / name
    if dump.is_dir():
        shutil.copytree(dump, place)
    else:
        shutil.copy(dump, place)
    backup_target.add_manifest()
    return place


def lay_changed(backup_target: BackupTarget, server: ShopServer, *statements: str, kind: str = "custom") -> Path:
    """Dump a changed shop into the target's folder, with its manifest."""
    with server.changed_shop(*statements) as database:
        place = server.dump(backup_target.dumps / "shop.dump", database, kind)
    backup_target.add_manifest()
    return place


@pytest.mark.parametrize("kind", ["custom", "directory", "plain", "tar"])
def test_a_good_dump_of_each_format_passes(backup_target: BackupTarget, shop_dumps: dict[str, Path], kind: str) -> None:
    lay(backup_target, shop_dumps[kind])
    result = backup_target.verify()
    assert (result.state, result.reason) == ("passed", None)
    run = backup_target.run(result.run_id)
    assert (run.dump, run.dump_format, run.worker) == ("shop.dump", kind, "worker-1")
    assert run.facts["rows"] == {"public.customers": CUSTOMERS, "public.orders": ORDERS}
    assert "public.orders.orders_customer_fk" in run.facts["constraints"]
    assert "public.orders.orders_by_customer" in run.facts["indexes"]
    assert run.facts["revision"] == "0007"
    assert None not in (run.dump_sha256, run.dump_bytes, run.restore_ms, run.finished_at, run.duration_ms)


def test_a_packed_plain_dump_passes(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    (backup_target.dumps / "shop.sql.gz").write_bytes(gzip.compress(shop_dumps["plain"].read_bytes()))
    backup_target.add_manifest()
    assert backup_target.verify().state == "passed"


def test_a_table_missing_in_the_dump_is_missed_though_an_older_restore_had_it(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path]
) -> None:
    """A database that is restored into day by day still has yesterday's rows; a new one has only the dump's."""
    shop_server.query("CREATE TABLE IF NOT EXISTS orders AS SELECT generate_series(1, 2000)", "entry")
    lay(backup_target, shop_dumps["custom"])
    assert backup_target.verify().state == "passed"
    lay_changed(backup_target, shop_server, "DROP TABLE orders")
    backup_target.write_profile(SHOP_PROFILE, min_size_ratio="0.0")
    result = backup_target.verify()
    assert result.state == "failed"
    assert backup_target.failed_checks(result)["tables"] == "missing: public.orders"
    assert shop_server.query("SELECT count(*) FROM orders", "entry") == [(2000,)]


def test_an_empty_table_fails(backup_target: BackupTarget, shop_server: ShopServer) -> None:
    lay_changed(backup_target, shop_server, "TRUNCATE orders")
    assert backup_target.failed_checks(backup_target.verify()) == {"rows public.orders": "0, at least 1 expected"}


def test_two_fifths_fewer_rows_than_the_last_good_run_fail(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path]
) -> None:
    lay(backup_target, shop_dumps["custom"])
    assert backup_target.verify().state == "passed"
    lay_changed(backup_target, shop_server, "DELETE FROM orders WHERE id % 5 < 2")
    result = backup_target.verify()
    assert backup_target.failed_checks(result) == {
        "rows public.orders": "1200, 40% fewer than the 2000 of the last good run"
    }
    again = backup_target.verify()
    assert again.state == "failed", "a bad run must not become what the next one is compared with"
    assert backup_target.verify(is_new_baseline=True).state == "passed"
    assert backup_target.verify().state == "passed"


def test_an_old_dump_fails_however_good_it_is(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    make_older(lay(backup_target, shop_dumps["custom"]), timedelta(hours=30))
    result = backup_target.verify()
    assert backup_target.failed_checks(result) == {"age": "shop.dump is 30.0 h old, at most 26.0 h"}


def test_the_time_in_a_name_counts_when_the_profile_says_so(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    """A copied file is new; what it holds is not."""
    backup_target.write_profile(SHOP_PROFILE, name_time='"shop-%Y%m%d.dump"')
    lay(backup_target, shop_dumps["custom"], f"shop-{datetime.now(UTC) - timedelta(days=3):%Y%m%d}.dump")
    (backup_target.dumps / "shop-notes.txt").write_text("not a dump")
    assert list(backup_target.failed_checks(backup_target.verify())) == ["age"]


def test_the_newest_dump_is_verified(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    make_older(lay(backup_target, shop_dumps["plain"], "shop-z.dump"), timedelta(hours=20))
    lay(backup_target, shop_dumps["custom"], "shop-a.dump")
    assert backup_target.run(backup_target.verify().run_id).dump == "shop-a.dump"


def test_no_dump_at_all_fails(backup_target: BackupTarget) -> None:
    result = backup_target.verify()
    assert result.state == "failed"
    assert "there is none that fits" in backup_target.failed_checks(result)["dump"]


@pytest.mark.parametrize("kind", ["custom", "plain", "directory"])
def test_a_truncated_dump_fails_even_without_a_manifest(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], kind: str
) -> None:
    place = lay(backup_target, shop_dumps[kind])
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    file = max(place.iterdir(), key=lambda path: path.stat().st_size) if place.is_dir() else place
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    expected = "restore" if kind == "plain" else "structure"
    assert list(backup_target.failed_checks(backup_target.verify())) == [expected]


def test_a_plain_dump_cut_between_two_statements_fails(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    """To psql such a file is a complete one."""
    text = shop_dumps["plain"].read_text()
    (backup_target.dumps / "shop.sql").write_text(text[: text.index("CREATE INDEX")])
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    assert backup_target.failed_checks(backup_target.verify()) == {
        "restore": "its end is missing: the dump was cut off"
    }


def test_a_cut_off_packed_dump_fails(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    packed = gzip.compress(shop_dumps["plain"].read_bytes())
    (backup_target.dumps / "shop.sql.gz").write_bytes(packed[: len(packed) // 2])
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    assert list(backup_target.failed_checks(backup_target.verify())) == ["restore"]


@pytest.mark.parametrize("kind", ["custom", "plain"])
def test_four_flipped_bytes_fail_by_the_manifest(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], kind: str
) -> None:
    place = lay(backup_target, shop_dumps[kind])
    flip_bytes(place, 4, seed=1)
    result = backup_target.verify()
    assert backup_target.failed_checks(result) == {
        "checksum": "shop.dump: not the bytes that were written (SHA-256 differs)"
    }
    assert backup_target.run(result.run_id).restore_ms is None, "a damaged dump is not restored"


def test_flipped_bytes_in_packed_rows_fail_even_without_a_manifest(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    place = lay(backup_target, shop_dumps["custom"])
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    flip_bytes(place, 4, seed=2, after=place.stat().st_size // 2)
    assert list(backup_target.failed_checks(backup_target.verify())) == ["restore"]


def test_a_directory_dump_that_lacks_a_file_fails_by_the_manifest(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    place = lay(backup_target, shop_dumps["directory"])
    gone = next(file for file in place.iterdir() if file.name != "toc.dat")
    gone.unlink()
    detail = backup_target.failed_checks(backup_target.verify())["checksum"]
    assert detail == f"shop.dump/{gone.name}: named in the manifest, not there"


def test_a_dump_without_its_manifest_fails(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    shutil.copy(shop_dumps["custom"], backup_target.dumps / "shop.dump")
    assert list(backup_target.failed_checks(backup_target.verify())) == ["checksum"]


def test_a_dump_of_half_the_size_of_the_last_good_one_fails(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    place = lay(backup_target, shop_dumps["custom"])
    assert backup_target.verify().state == "passed"
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 3])
    backup_target.add_manifest()
    assert "33% of the last good one" in backup_target.failed_checks(backup_target.verify())["size"]


def test_a_wrong_revision_fails(backup_target: BackupTarget, shop_server: ShopServer) -> None:
    lay_changed(backup_target, shop_server, "UPDATE alembic_version SET version_num = '0006'")
    assert backup_target.failed_checks(backup_target.verify()) == {"revision": "0006, expected 0007"}


@pytest.mark.parametrize(
    ("statement", "check", "name"),
    [
        ("ALTER TABLE orders DROP CONSTRAINT orders_customer_fk", "constraints", "public.orders.orders_customer_fk"),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_cents_positive",
            "constraints",
            "public.orders.orders_cents_positive",
        ),
        ("DROP INDEX orders_by_customer", "indexes", "public.orders.orders_by_customer"),
    ],
)
def test_a_constraint_or_index_that_the_last_good_run_had_is_missed(
    backup_target: BackupTarget, shop_server: ShopServer, statement: str, check: str, name: str
) -> None:
    lay_changed(backup_target, shop_server)
    assert backup_target.verify().state == "passed"
    lay_changed(backup_target, shop_server, statement)
    assert backup_target.failed_checks(backup_target.verify()) == {check: f"missing: {name}"}


def test_a_constraint_that_the_profile_names_is_missed_in_the_first_run(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    backup_target.write_profile(
        SHOP_PROFILE + '[schema]\nconstraints = ["orders.orders_customer_fk"]\nmin_indexes = 4\n'
    )
    lay_changed(backup_target, shop_server, "ALTER TABLE orders DROP CONSTRAINT orders_customer_fk")
    assert backup_target.failed_checks(backup_target.verify()) == {"constraints": "missing: orders.orders_customer_fk"}


def test_a_failing_assertion_fails_and_shows_both_answers(backup_target: BackupTarget, shop_server: ShopServer) -> None:
    orphan = "INSERT INTO orders VALUES (9001, 5000, 1)"
    lay_changed(backup_target, shop_server, "ALTER TABLE orders DROP CONSTRAINT orders_customer_fk", orphan)
    assert backup_target.failed_checks(backup_target.verify()) == {
        "assertion every order has a customer": "1, expected 0"
    }


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT cents FROM orders", "2000 rows; an assertion answers one row with one column"),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands into a prepared statement"),
        ("DELETE FROM orders RETURNING 1", "cannot execute DELETE in a read-only transaction"),
        ("SELECT nonsense", 'column "nonsense" does not exist'),
        ("SELECT true FROM pg_sleep(30)", "no answer within 0.3 s"),
    ],
)
def test_an_assertion_that_cannot_be_answered_fails_and_the_others_go_on(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], statement: str, said: str
) -> None:
    more = f'[[assertions]]\nname = "odd"\nsql = "{statement}"\n[[assertions]]\nname = "last"\nsql = "SELECT true"\n'
    backup_target.write_profile(SHOP_PROFILE + more, query_timeout='"0.3s"')
    lay(backup_target, shop_dumps["custom"])
    result = backup_target.verify()
    assert backup_target.failed_checks(result) == {"assertion odd": said}
    assert backup_target.run(result.run_id).checks[-1] == {"name": "assertion last", "passed": True, "detail": "True"}


def test_a_database_whose_newest_row_is_old_fails_though_the_file_is_new(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    lay_changed(backup_target, shop_server, "UPDATE customers SET created_at = now() - interval '3 days'")
    failed = backup_target.failed_checks(backup_target.verify())
    assert list(failed) == ["newest public.customers.created_at"]
    assert failed["newest public.customers.created_at"].startswith("3 days, 0:0")


@pytest.mark.parametrize("kind", ["custom", "plain"])
def test_a_restore_over_its_limit_is_ended_and_fails(
    backup_target: BackupTarget, shop_server: ShopServer, kind: str
) -> None:
    lay_changed(backup_target, shop_server, NAPS, kind=kind)
    backup_target.write_profile(SHOP_PROFILE, restore_timeout='"1s"')
    result = backup_target.verify()
    assert backup_target.failed_checks(result) == {"restore": "not restored within its limit of 0:00:01; it was ended"}
    assert (backup_target.run(result.run_id).duration_ms or 0) < 15_000
    assert shop_server.query("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'taskyard%'") == [(0,)]


def test_a_table_that_nobody_declared_is_watched_by_every_table(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path]
) -> None:
    backup_target.write_profile(
        'kind = "postgresql"\nfolder = "dumps"\npattern = "shop*"\n[every_table]\nmin_ratio = 0.9\n'
    )
    lay(backup_target, shop_dumps["custom"])
    assert backup_target.verify().state == "passed"
    lay_changed(backup_target, shop_server, "DELETE FROM orders WHERE id % 5 = 0", "DROP TABLE alembic_version")
    assert backup_target.failed_checks(backup_target.verify()) == {
        "tables since last": "gone since the last good run: public.alembic_version",
        "rows public.orders": "1600, 20% fewer than the 2000 of the last good run",
        "constraints": "missing: public.alembic_version.alembic_version_pkey",
        "indexes": "missing: public.alembic_version.alembic_version_pkey",
    }
