"""Another program's leniency is not a verdict: a dump is walked to its end before anything is restored."""

import gzip
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tests.backups.backup_target import SHOP_PROFILE, BackupTarget, make_older
from tests.backups.test_postgres_backups import lay


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_a_tar_dump_that_was_cut_off_fails_although_pg_restore_takes_it(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], share: float
) -> None:
    place = lay(backup_target, shop_dumps["tar"])
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"', min_size_ratio="0")
    content = place.read_bytes()
    place.write_bytes(content[: int(len(content) * share)])
    assert list(backup_target.failed_checks(backup_target.verify())) == ["structure"]


@pytest.mark.parametrize("options", [["--compress=none"], ["--compress=none", "--inserts"], ["--compress=gzip"]])
def test_half_a_data_file_of_a_directory_dump_is_missed(backup_target: BackupTarget, options: list[str]) -> None:
    assert backup_target.server is not None
    place = backup_target.server.dump(backup_target.dumps / "shop.dump", "shop", "directory", *options)
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    file = max(place.iterdir(), key=lambda path: path.stat().st_size)
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    half = content[: content.index(b"\n", len(content) // 2) + 1]
    file.write_bytes(gzip.compress(half) if file.suffix == ".gz" else half)
    failed = backup_target.failed_checks(backup_target.verify())
    assert failed.keys() == {"structure"}
    assert "public.orders" in failed["structure"]


def test_a_data_file_that_is_gone_is_named(backup_target: BackupTarget, shop_dumps: dict[str, Path]) -> None:
    place = backup_target.dumps / "shop.dump"
    shutil.copytree(shop_dumps["directory"], place)
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"')
    max(place.iterdir(), key=lambda path: path.stat().st_size).unlink()
    assert "is missing" in backup_target.failed_checks(backup_target.verify())["structure"]


def test_large_objects_belong_to_the_walk(backup_target: BackupTarget) -> None:
    server = backup_target.server
    assert server is not None
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"', min_size_ratio="0")
    with server.changed_shop("SELECT lo_from_bytea(0, 'contract'::bytea)") as database:
        for kind in ("custom", "tar", "directory"):
            server.dump(backup_target.dumps / f"shop.{kind}", database, kind)
            assert backup_target.verify().state == "passed", kind
    next((backup_target.dumps / "shop.directory").glob("blob_*.dat*")).unlink()
    assert "large object" in backup_target.failed_checks(backup_target.verify())["structure"]


@pytest.mark.parametrize("kind", ["custom", "tar"])
def test_no_cut_of_an_archive_goes_unnoticed(shop_dumps: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """At 200 places over the whole file, and at each of the last bytes."""
    from tasks.backups.dumps.archive_structure import check_custom, check_tar  # noqa: PLC0415 - the walk alone
    from tasks.backups.dumps.archive_toc import ArchiveDamagedError  # noqa: PLC0415 - as above

    check = {"custom": check_custom, "tar": check_tar}[kind]
    content = shop_dumps[kind].read_bytes()
    check(shop_dumps[kind])
    cut = tmp_path / "cut"
    for size in [*range(0, len(content), len(content) // 200), *range(len(content) - 20, len(content))]:
        cut.write_bytes(content[:size])
        with pytest.raises(ArchiveDamagedError):
            check(cut)


def test_the_report_of_a_broken_dump_says_whether_the_one_before_is_good(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    backup_target.write_profile(SHOP_PROFILE, manifest='"off"', min_size_ratio="0")
    before, newest = backup_target.dumps / "shop.1", backup_target.dumps / "shop.2"
    shutil.copy(shop_dumps["custom"], before)
    newest.write_bytes(before.read_bytes()[:40_000])
    make_older(before, timedelta(hours=1))
    result = backup_target.verify()
    (check,) = [check for check in backup_target.run(result.run_id).checks if check["name"] == "dump before"]
    assert check["passed"]
    assert "shop.1 of" in check["detail"]
    assert "is good" in check["detail"]
    before.write_bytes(before.read_bytes()[:50_000])
    make_older(before, timedelta(hours=1))
    assert "fails too: structure" in backup_target.failed_checks(backup_target.verify())["dump before"]
