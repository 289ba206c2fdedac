"""The task in a real worker: a run that loses its worker in the restore leaves nothing behind after the next one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from config.queues import BACKUPS
from tests.backups.backup_target import BackupTarget, environment
from tests.backups.shop_server import NAPS, PASSWORD, ShopServer
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import ROOT, Worker

LIMIT = 60  # seconds


def enqueue(backup_target: BackupTarget, valkey: Server) -> None:
    """Enqueue as an operator does."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "backups", "verify", "--enqueue", "--json"]
    env = {**environment(backup_target, REDIS_URL=valkey.url), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["items"][0]["target"] == "shop"


def a_worker(backup_target: BackupTarget, valkey: Server, name: str, folder: Path) -> Worker:
    env = environment(backup_target, REDIS_URL=valkey.url, WORKER_QUEUE_STALLED_INTERVAL="2000")
    arguments = ["-P", "prefork", "-c", "1", "-Q", BACKUPS.name, "--without-gossip", "--without-mingle"]
    return Worker("tasks", folder, name=name, arguments=arguments, env=env)


def test_a_worker_killed_in_the_restore_leaves_no_scratch_database_after_the_next_run(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path], valkey: Server, tmp_path: Path
) -> None:
    """Its pg_restore must not go on for ever, its lease must run out, and its message must come back."""
    with shop_server.changed_shop(NAPS) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    restoring = (
        "SELECT datname FROM pg_stat_activity WHERE application_name = 'pg_restore' AND datname LIKE 'taskyard%'"
    )
    first = a_worker(backup_target, valkey, "first", tmp_path / "logs").start()
    try:
        enqueue(backup_target, valkey)
        wait_for(lambda: shop_server.query(restoring), LIMIT, f"the restore runs\n{first.tail()}")
    finally:
        first.kill()
    (left,) = shop_server.scratch_databases()
    assert "prefork" in first.log.read_text()
    shutil.copy(shop_dumps["custom"], backup_target.dumps / "shop.dump")
    backup_target.add_manifest()
    with a_worker(backup_target, valkey, "second", tmp_path / "logs") as second:
        ended = wait_for(
            lambda: [run.state for run in backup_target.runs()] == ["lost", "passed"],
            LIMIT,
            "the message comes back and passes",
        )
        assert ended
        assert shop_server.scratch_databases() == []
        assert left in second.log.read_text()
    logs = first.log.read_text() + second.log.read_text()
    assert PASSWORD not in logs
    assert str(backup_target.scratch_url) not in logs


def test_a_bad_backup_is_a_result_and_a_wrong_setting_a_dead_letter_at_once(
    backup_target: BackupTarget, shop_dumps: dict[str, Path], valkey: Server, tmp_path: Path, shop_server: ShopServer
) -> None:
    (backup_target.dumps / "shop.dump").write_bytes(shop_dumps["custom"].read_bytes()[:5000])
    backup_target.add_manifest()
    with a_worker(backup_target, valkey, "judge", tmp_path / "logs") as worker:
        enqueue(backup_target, valkey)
        wait_for(
            lambda: [run.state for run in backup_target.runs()] == ["failed"], LIMIT, f"it is judged\n{worker.tail()}"
        )
    backup_target.scratch_url = shop_server.url_of(password="wrong")
    with a_worker(backup_target, valkey, "misled", tmp_path / "logs") as worker:
        enqueue(backup_target, valkey)
        wait_for(lambda: len(backup_target.runs()) == 2, LIMIT, f"it cannot be verified\n{worker.tail()}")
        wait_for(lambda: waiting(valkey, "dead-letter") == 1, LIMIT, "it is a dead letter")
    assert [run.state for run in backup_target.runs()] == ["failed", "error"]


def waiting(valkey: Server, queue: str) -> int:
    """How many messages wait in a queue of the platform's transport."""
    with valkey.client() as client:
        keys = [key for key in client.scan_iter(match=f"*{queue}*") if "waiting" in key]
        return sum(int(client.zcard(key)) for key in keys)
