"""The ways to a server: TLS, a unix socket, Sentinel with a fail-over; and Celery's own tools over them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from taskyard.broker.transport.options import transport_settings
from tests.broker.app import Settings
from tests.broker.harness import BrokerHarness
from tests.servers import Sentinel, Server, TlsServer
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start


def test_tasks_run_over_tls(tmp_path: Path, recorder: Server) -> None:
    with (
        TlsServer(tmp_path / "tls") as server,
        BrokerHarness(server, recorder, tmp_path, url=server.tls_url) as harness,
    ):
        run = harness.send("record")
        harness.worker("threads", 1)
        harness.wait_ended([run])
        harness.wait_empty()


def test_tasks_run_over_a_unix_socket(tmp_path: Path, recorder: Server) -> None:
    path = tmp_path / "socket"
    with (
        Server(tmp_path / "server", options=["--unixsocket", str(path)]) as server,
        BrokerHarness(server, recorder, tmp_path, url=f"unix://{path}") as harness,
    ):
        run = harness.send("record")
        harness.worker("threads", 1)
        harness.wait_ended([run])
        harness.wait_empty()


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("redis://h:1/2", "taskyard.broker.transport.transport:Transport"),
        ("rediss://h:1/2", "taskyard.broker.transport.transport:Transport"),
        ("sentinel://h:1/2", "taskyard.broker.transport.transport:SentinelTransport"),
    ],
)
def test_the_transport_follows_from_the_url(url: str, transport: str) -> None:
    assert transport_settings(Settings(url))["broker_transport"] == transport


def test_stock_kombu_is_one_setting_away(costly_server: Server, recorder: Server, tmp_path: Path) -> None:
    with BrokerHarness(costly_server, recorder, tmp_path, taskyard_transport="redis") as harness:
        assert "broker_transport" not in transport_settings(harness.settings)
        run, again, dead = harness.send("record"), harness.send("redeliver", 0.05, 2), harness.send("bury")
        harness.worker("threads", 2)
        harness.wait_ended([run])
        wait_for(lambda: len(harness.dead_letters()) == 1, 60, "the dead letter was stored")
        wait_for(lambda: harness.started().count(again) == 3, 60, "it came back twice")
        attempts = [line.split()[2] for line in harness.lines() if line.startswith(f"try {again}")]
        assert attempts == ["1", "2", "3"]
        assert harness.dead_letters()[0].startswith(f"{dead} exhausted ValueError")
        wait_for(lambda: harness.states(again)[-1:] == ["succeeded"], 10, "its end is recorded")


def test_celerys_own_tools_work(costly_harness: BrokerHarness) -> None:
    harness = costly_harness
    harness.worker("prefork", 1, minimal=False)
    assert harness.app.control.inspect(timeout=20, limit=1).ping() == {"worker@test": {"ok": "pong"}}
    queues: Any = harness.app.control.inspect(timeout=20, limit=1).active_queues()
    assert {queue["name"] for queue in queues["worker@test"]} == {"celery", "dead-letter"}
    for _ in range(5):
        harness.send("record", queue="elsewhere")
    command = [sys.executable, "-m", "celery", "-A", "tests.broker.app", "purge", "-f", "-Q", "elsewhere"]
    env = {"TEST_BROKER_URL": harness.url, "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "Purged 5 messages" in done.stdout + done.stderr
    assert harness.control.counts("elsewhere").waiting == 0


def test_a_fail_over_under_load_loses_nothing_that_was_replicated(tmp_path: Path, recorder: Server) -> None:
    master = Server(tmp_path / "master", appendfsync="always").start()
    replica = Server(tmp_path / "replica", options=["--replicaof", "127.0.0.1", str(master.port)]).start()
    sentinel = Sentinel(tmp_path / "sentinel", master.port)
    try:
        with BrokerHarness(
            master, recorder, tmp_path, url=f"sentinel://127.0.0.1:{sentinel.port}/0?master_name=mymaster"
        ) as harness:
            worker = harness.worker("threads", 2)
            runs = [harness.send("record", "", 0.02) for _ in range(50)]
            with replica.client() as client:
                wait_for(lambda: _offset(client) >= _offset(harness.broker), 20, "all is replicated")
                master.kill()
                wait_for(lambda: _is_master(client), 60, "the replica took over")
            runs += [str(wait_for(lambda: _try_to_send(harness), 60, "a producer goes on")) for _ in range(20)]
            harness.wait_ended(runs)
            assert worker.is_running
    finally:
        sentinel.stop()
        replica.stop()
        master.stop()


def _is_master(client: redis.Redis) -> bool:
    try:
        info: Any = client.info("replication")
    except redis.ConnectionError:  # Sentinel ends all connections of the replica that it promotes, ours too
        return False
    return str(info["role"]) == "master"


def _offset(client: redis.Redis) -> int:
    info: Any = client.info("replication")
    return int(info["master_repl_offset"] if info["role"] == "master" else info["slave_repl_offset"])


def _try_to_send(harness: BrokerHarness) -> str | None:
    try:
        return harness.send("record")
    except (OperationalError, redis.RedisError, OSError):
        return None
