"""The task in a real worker: a run that loses its worker in the restore leaves nothing behind after the next one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from config.queues import BACKUPS
from tests.backups.shops import NAPS, PASSWORD, ShopServer
from tests.backups.stage import Stage, environment
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import ROOT, Worker

LIMIT = 60  # seconds


def enqueue(stage: Stage, valkey: Server) -> None:
    """Enqueue as an operator does."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "backups", "verify", "--enqueue", "--json"]
    env = {**environment(stage, REDIS_URL=valkey.url), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["items"][0]["target"] == "shop"


def a_worker(stage: Stage, valkey: Server, name: str, folder: Path) -> Worker:
    env = environment(stage, REDIS_URL=valkey.url, WORKER_QUEUE_STALLED_INTERVAL="2000")
    arguments = ["-P", "prefork", "-c", "1", "-Q", BACKUPS.name, "--without-gossip", "--without-mingle"]
    return Worker("tasks", folder, name=name, arguments=arguments, env=env)


def test_a_worker_killed_in_the_restore_leaves_no_scratch_database_after_the_next_run(
    stage: Stage, shop_server: ShopServer, shop_dumps: dict[str, Path], valkey: Server, tmp_path: Path
) -> None:
    """Its pg_restore must not go on for ever, its lease must run out, and its message must come back."""
    with shop_server.changed_shop(NAPS) as database:
        shop_server.dump(stage.dumps / "shop.dump", database)
    stage.add_manifest()
    restoring = (
        "SELECT datname FROM pg_stat_activity WHERE application_name = 'pg_restore' AND datname LIKE 'taskyard%'"
    )
    first = a_worker(stage, valkey, "first", tmp_path / "logs").start()
    try:
        enqueue(stage, valkey)
        wait_for(lambda: shop_server.query(restoring), LIMIT, f"the restore runs\n{first.tail()}")
    finally:
        first.kill()
    (left,) = shop_server.scratch_databases()
    assert "prefork" in first.log.read_text()
    shutil.copy(shop_dumps["custom"], stage.dumps / "shop.dump")
    stage.add_manifest()
    with a_worker(stage, valkey, "second", tmp_path / "logs") as second:
        ended = wait_for(
            lambda: [run.state for run in stage.runs()] == ["lost", "passed"],
            LIMIT,
            "the message comes back and passes",
        )
        assert ended
        assert shop_server.scratch_databases() == []
        assert left in second.log.read_text()
    logs = first.log.read_text() + second.log.read_text()
    assert PASSWORD not in logs
    assert str(stage.scratch_url) not in logs


def test_a_bad_backup_is_a_result_and_a_wrong_setting_a_dead_letter_at_once(
    stage: Stage, shop_dumps: dict[str, Path], valkey: Server, tmp_path: Path, shop_server: ShopServer
) -> None:
    (stage.dumps / "shop.dump").write_bytes(shop_dumps["custom"].read_bytes()[:5000])
    stage.add_manifest()
    with a_worker(stage, valkey, "judge", tmp_path / "logs") as worker:
        enqueue(stage, valkey)
        wait_for(lambda: [run.state for run in stage.runs()] == ["failed"], LIMIT, f"it is judged\n{worker.tail()}")
    stage.scratch_url = shop_server.url_of(password="wrong")
    with a_worker(stage, valkey, "misled", tmp_path / "logs") as worker:
        enqueue(stage, valkey)
        wait_for(lambda: len(stage.runs()) == 2, LIMIT, f"it cannot be verified\n{worker.tail()}")
        wait_for(lambda: waiting(valkey, "dead-letter") == 1, LIMIT, "it is a dead letter")
    assert [run.state for run in stage.runs()] == ["failed", "error"]


def waiting(valkey: Server, queue: str) -> int:
    """How many messages wait in a queue of the platform's transport."""
    with valkey.client() as client:
        keys = [key for key in client.scan_iter(match=f"*{queue}*") if "waiting" in key]
        return sum(int(client.zcard(key)) for key in keys)
