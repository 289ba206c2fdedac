"""The demo's act gives the right verdicts, on real databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.demo.backups import demo_backups
from tests.app_broker import forget_settings
from tests.backups.backup_target import BackupTarget
from tests.backups.shop_server import ShopServer
from tests.databases import BINARIES


@pytest.fixture
def here(backup_target: BackupTarget, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackupTarget]:
    """This process works on the target's platform database, as the demo does on its own."""
    monkeypatch.setenv("DATABASE_URL", backup_target.database.url)
    forget_settings()
    yield backup_target
    forget_settings()


def test_good_backups_are_verified_and_bad_ones_caught(
    here: BackupTarget, shop_server: ShopServer, tmp_path: Path
) -> None:
    acts = list(demo_backups(tmp_path / "demo", shop_server.url_of(), BINARIES))
    assert [act.state for act in acts] == ["passed", "failed", "passed", "failed"], acts
    assert all(act.is_right for act in acts)
    assert "SHA-256 differs" in str(acts[1].reason)
    assert "40% fewer" in str(acts[3].reason)
    assert [run.target for run in here.runs()] == ["market-sqlite"] * 2 + ["market-postgresql"] * 2


def test_it_needs_no_server(here: BackupTarget, tmp_path: Path) -> None:
    assert [act.state for act in demo_backups(tmp_path / "demo")] == ["passed", "failed"]
    assert len(here.runs()) == 2
