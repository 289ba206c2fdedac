"""Profiles: what is written is what is meant, and what is wrong is named with its place."""

from datetime import timedelta
from pathlib import Path

import pytest

from config.settings import BackupSettings
from tasks.backups.errors import BackupConfigError, UnknownTargetError
from tasks.backups.handlers import verify
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import find_profile, load_profile, load_profiles, open_profiles
from taskyard.settings.group import SettingsError
from taskyard.settings.loading import load_settings
from taskyard.tasks.errors import InvalidPayloadError
from tests.backups.backup_target import SHOP_PROFILE, BackupTarget

LEAST = 'kind = "postgresql"\nfolder = "/dumps"\npattern = "*.dump"\n'
TABLE = '[[tables]]\nname = "a"\n'


def written(folder: Path, text: str, name: str = "shop.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_profile_is_read_with_its_defaults(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, SHOP_PROFILE))
    assert (profile.target, profile.folder) == ("shop", tmp_path / "dumps")
    assert (profile.max_age, profile.restore_timeout) == (timedelta(hours=26), timedelta(minutes=30))
    assert profile.manifest == "required"
    assert [(rules.name, rules.min_rows, rules.min_ratio) for rules in profile.tables] == [
        ("customers", 1, 0.8),
        ("orders", 1, 0.8),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = ", "shop.toml: not TOML"),
        (LEAST, "declare [[tables]] or [every_table]"),
        (TABLE, "kind: Field required"),
        (LEAST.replace("postgresql", "mysql") + TABLE, "kind: Input should be 'postgresql' or 'sqlite'"),
        (LEAST + "max_age = 26\n" + TABLE, 'max_age: write a number with its unit, such as "90s"'),
        (LEAST + 'max_age = "26 hours"\n' + TABLE, "max_age: write a number with its unit"),
        (LEAST + 'maxage = "26h"\n' + TABLE, "maxage: Extra inputs are not permitted"),
        (LEAST + 'target = "other"\n' + TABLE, "target: the file's name says it already"),
        (LEAST + 'restore_timeout = "5h"\n' + TABLE, "restore_timeout: above 0 and at most 4:00:00"),
        (LEAST + 'query_timeout = "0s"\n' + TABLE, "query_timeout: above 0"),
        (LEAST + 'name_time = "nightly-%d.dump"\n' + TABLE, "name_time: a format with %Y, month and day"),
        (LEAST.replace("*.dump", "../*.dump") + TABLE, "pattern: a name below folder"),
        (LEAST + TABLE + "min_ratio = 1.5\n", "tables.0.min_ratio: Input should be less than or equal to 1"),
        (LEAST + TABLE + 'newest = "created_at"\n', "tables.0: newest and max_age belong together"),
        (LEAST + TABLE + TABLE, "tables: a name stands there twice"),
        (LEAST + TABLE + '[[assertions]]\nname = "x"\n', "assertions.0.sql: Field required"),
        (LEAST + TABLE + "[revision]\nexpected = []\n", "revision.expected: List should have at least 1 item"),
        (LEAST + TABLE + "[schema]\nmin_indexes = -1\n", "schema.min_indexes: Input should be greater than"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_place_of_the_fault(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BackupConfigError) as raised:
        load_profile(written(tmp_path, text))
    assert said in str(raised.value)
    assert str(raised.value).startswith("shop.toml: ")


def test_a_name_that_cannot_be_part_of_a_databases_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupConfigError, match="target"):
        load_profile(written(tmp_path, LEAST + TABLE, 'Shop"; --.toml'))


def test_all_wrong_profiles_are_named_at_once(tmp_path: Path) -> None:
    for name in ("one.toml", "two.toml"):
        written(tmp_path, LEAST, name)
    with pytest.raises(BackupConfigError, match=r"one\.toml.*\n.*two\.toml"):
        load_profiles(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupConfigError, match=r"BACKUP_PROFILES: no \*\.toml"):
        load_profiles(tmp_path)


def test_an_unknown_target_is_refused_with_the_names_that_are_known(backup_target: BackupTarget) -> None:
    with pytest.raises(UnknownTargetError, match="no backup profile 'other'; known: shop"):
        verify(VerifyBackup(target="other"), backup_target.dependencies(), "me")
    assert backup_target.runs() == []


def test_neither_profiles_nor_a_dump_path_is_refused_when_a_job_is_processed_not_at_the_start() -> None:
    settings = load_settings({}, group=BackupSettings)
    with pytest.raises(BackupConfigError, match=r"set BACKUP_PROFILES .* or BACKUP_DUMP_PATH"):
        open_profiles(settings)


@pytest.mark.parametrize(
    ("path", "folder", "pattern"),
    [
        ("dumps/latest.dump", "dumps", "latest.dump"),
        ("dumps/night-*.dump", "dumps", "night-*.dump"),
        ("dumps", "dumps", "*"),
        ("tree", ".", "tree"),
    ],
)
def test_the_older_dump_path_may_be_a_file_a_pattern_a_folder_or_a_directory_dump(
    tmp_path: Path, path: str, folder: str, pattern: str
) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "toc.dat").touch()
    settings = load_settings({"BACKUP_DUMP_PATH": str(tmp_path / path)}, group=BackupSettings)
    profile = find_profile(open_profiles(settings), "default")
    assert (profile.folder, profile.pattern) == (tmp_path / folder, pattern)


def test_the_older_settings_keep_their_names_and_defaults() -> None:
    settings = load_settings({}, group=BackupSettings)
    assert settings.backup_smoke_timeout_ms == timedelta(seconds=15)
    older = (settings.backup_dump_path, settings.backup_ephemeral_db_url, settings.backup_slack_webhook_url)
    assert older == (None, None, None)
    secrets = {"BACKUP_EPHEMERAL_DB_URL": "postgresql://a:hidden@b/c", "BACKUP_SLACK_WEBHOOK_URL": "https://x/hidden"}
    assert "hidden" not in repr(load_settings(secrets, group=BackupSettings))


@pytest.mark.parametrize(
    ("name", "value"), [("BACKUP_SMOKE_TIMEOUT_MS", "0"), ("BACKUP_SMOKE_TIMEOUT_MS", "soon"), ("BACKUP_DUMP", "x")]
)
def test_a_wrong_setting_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings({name: value}, group=BackupSettings)


@pytest.mark.parametrize("fields", [{"target": "Shop"}, {"target": "a" * 32}, {"target": 1}, {"database": "shop"}])
def test_a_wrong_payload_reaches_no_broker(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidPayloadError):
        VerifyBackup.checked(**fields)
