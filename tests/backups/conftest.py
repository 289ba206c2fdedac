"""Servers and targets for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backups.backup_target import BackupTarget
from tests.backups.shop_server import ShopServer
from tests.databases import Database


@pytest.fixture(scope="session")
def shop_server() -> Iterator[ShopServer]:
    server = ShopServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def shop_dumps(shop_server: ShopServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good dump of each format."""
    folder = tmp_path_factory.mktemp("dumps")
    return {
        kind: shop_server.dump(folder / f"shop.{kind}", "shop", kind)
        for kind in ("custom", "directory", "plain", "tar")
    }


@pytest.fixture
def backup_target(sqlite_database: Database, tmp_path: Path, shop_server: ShopServer) -> Iterator[BackupTarget]:
    """A target with the shop's server; no test may leave a scratch database behind."""
    yield BackupTarget(sqlite_database, tmp_path, shop_server)
    left = shop_server.scratch_databases()
    for name in left:  # so that this is not the next test's fault
        shop_server.query(f'DROP DATABASE "{name}" WITH (FORCE)')
    assert left == []


@pytest.fixture
def sqlite_target(sqlite_database: Database, tmp_path: Path) -> BackupTarget:
    """A target without a server, for SQLite."""
    return BackupTarget(sqlite_database, tmp_path)
