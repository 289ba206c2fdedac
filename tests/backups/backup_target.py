"""A target for tests of backup verification: profiles, dumps and runs in a few words."""

import os
import random
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlmodel import Session, col, select

from tasks.backups.checks.verification_report import FinishedVerification
from tasks.backups.dependencies import VerifyDependencies
from tasks.backups.dumps.checksums import write_manifest
from tasks.backups.dumps.dump_search import find_dumps
from tasks.backups.handlers import VerificationResult, verify
from tasks.backups.models import BackupRun
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import load_profile
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.restore.postgres_programs import PostgresPrograms
from tasks.backups.restore.server_address import ServerAddress, parse_address
from tasks.backups.store import AnnounceRun, BackupStore
from tests.backups.shop_server import ShopServer
from tests.databases import BINARIES, Database

# What a shop's owner would write.
SHOP_PROFILE = """
kind = "postgresql"
folder = "dumps"
pattern = "shop*"
stable_for = "0s"

[revision]
expected = ["0007"]

[[tables]]
name = "customers"
newest = "created_at"
max_age = "2d"

[[tables]]
name = "orders"

[[assertions]]
name = "every order has a customer"
sql = "SELECT count(*) FROM orders o LEFT JOIN customers c ON c.id = o.customer_id WHERE c.id IS NULL"
expected = 0
"""


class BackupTarget:
    """One target named `shop`, with a folder of dumps, on one platform database."""

    def __init__(self, database: Database, folder: Path, server: ShopServer | None = None) -> None:
        self.database = database
        self.folder = folder
        self.dumps = folder / "dumps"
        self.dumps.mkdir()
        self.server = server
        self.lease_time = timedelta(seconds=30)
        self.announce: AnnounceRun = lambda _session, _finished: None
        self.programs = PostgresPrograms(BINARIES)
        self.live: list[ServerAddress] = []
        self.live_files: list[Path] = []
        self.scratch_url = server.url_of() if server else None
        self.write_profile(SHOP_PROFILE)

    def write_profile(self, text: str, **replaced: str) -> BackupProfile:
        """Write the profile; `replaced` gives whole lines of the top level instead of those with the same key."""
        lines = [line for line in text.strip().splitlines() if line.split(" = ")[0] not in replaced]
        lines = [f"{key} = {value}" for key, value in replaced.items()] + lines
        path = self.folder / "shop.toml"
        path.write_text("\n".join(lines))
        return load_profile(path)

    def profile(self) -> BackupProfile:
        """The profile as it is written now."""
        return load_profile(self.folder / "shop.toml")

    def add_manifest(self) -> None:
        """Write the manifest of the newest dump, as the program that made it would."""
        write_manifest(find_dumps(self.profile())[0])

    def store(self) -> BackupStore:
        """A store on the platform's database."""
        return BackupStore(self.database.session, self.announce, self.lease_time)

    def dependencies(self) -> VerifyDependencies:
        """What the handler works with."""
        address = parse_address(self.scratch_url, "BACKUP_EPHEMERAL_DB_URL") if self.scratch_url else None
        return VerifyDependencies(
            store=self.store(),
            profiles={"shop": self.profile()},
            programs=self.programs,
            scratch_server=address,
            live=self.live,
            live_files=self.live_files,
            worker="worker-1",
        )

    def verify(self, *, holder: str = "", is_new_baseline: bool = False) -> VerificationResult:
        """Verify the target."""
        payload = VerifyBackup(target="shop", is_new_baseline=is_new_baseline)
        return verify(payload, self.dependencies(), holder or uuid4().hex)

    def runs(self) -> list[BackupRun]:
        """All runs, the first one first."""
        with Session(self.database.engine) as session:
            return list(session.exec(select(BackupRun).order_by(col(BackupRun.started_at))).all())

    def run(self, run_id: str | None) -> BackupRun:
        """One run."""
        return next(run for run in self.runs() if run.id == UUID(run_id))

    def failed_checks(self, result: VerificationResult) -> dict[str, str]:
        """Name and detail of the checks that failed."""
        return {check["name"]: check["detail"] for check in self.run(result.run_id).checks if not check["passed"]}

    def keep(self, finished: list[FinishedVerification]) -> None:
        """Collect what would be announced."""
        self.announce = lambda _session, run: finished.append(run)


def make_older(path: Path, age: timedelta) -> None:
    """Set back the time of a file."""
    moment = time.time() - age.total_seconds()
    os.utime(path, (moment, moment))


def flip_bytes(path: Path, count: int, *, seed: int, after: int = 0) -> None:
    """Change so many bytes somewhere in the file."""
    content = bytearray(path.read_bytes())
    for place in random.Random(seed).sample(range(after, len(content)), count):  # noqa: S311 - damage, not secrecy
        content[place] ^= 0xFF
    path.write_bytes(content)


def environment(backup_target: BackupTarget, **more: str) -> Mapping[str, str]:
    """The settings with which a process of its own works on this target."""
    values: dict[str, Any] = {
        "DATABASE_URL": backup_target.database.url,
        "BACKUP_PROFILES": str(backup_target.folder),
        "BACKUP_EPHEMERAL_DB_URL": backup_target.scratch_url or "",
        "BACKUP_PG_BIN": str(BINARIES),
        "BACKUP_LEASE": "2",
        "LOG_FORMAT": "json",
    }
    return {**values, **more}
