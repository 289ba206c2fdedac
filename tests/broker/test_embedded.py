"""The embedded server starts anywhere, keeps its data and leaves no orphan."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from taskyard.broker.server import valkey
from taskyard.broker.server.valkey import EmbeddedValkey
from tests.proxy import Proxy
from tests.servers import Server, TlsServer
from tests.waiting import wait_for


def test_what_was_written_is_there_after_a_kill(tmp_path: Path) -> None:
    server = Server(tmp_path, appendfsync="always")
    with server, server.client() as client:
        client.set("a", "1")
        server.restart(signal.SIGKILL)
        assert client.get("a") == "1"


def test_two_servers_never_share_a_port(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "a") as a, EmbeddedValkey(tmp_path / "b") as b:
        assert a.port != b.port


def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """A developer's SIGKILL must not leave servers behind."""
    code = (
        "import time; from pathlib import Path; from taskyard.broker.server.valkey import EmbeddedValkey;"
        f"print(EmbeddedValkey(Path({str(tmp_path)!r})).start().pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 5, "the server ended")


def test_a_server_that_loads_for_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large append-only file takes longer than a server may be silent; it answers at every 1024th key."""
    keys, delay = 8_000, 400  # microseconds for each
    with EmbeddedValkey(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(keys):
            pipe.set(str(number), number)
        pipe.execute()
    monkeypatch.setattr(valkey, "START_LIMIT", 1.5)
    slow = EmbeddedValkey(tmp_path, options=["--key-load-delay", str(delay)])
    with slow as server, redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == keys


def test_a_tls_server_is_reached_with_its_own_authority(tmp_path: Path) -> None:
    with TlsServer(tmp_path / "tls") as server, redis.Redis.from_url(server.tls_url) as client:
        assert client.ping()


def test_a_cut_proxy_carries_nothing_and_a_healed_one_does(broker_server: Server) -> None:

    with Proxy(broker_server.port) as proxy, redis.Redis.from_url(proxy.url, socket_timeout=1) as client:
        assert client.ping()
        proxy.cut()
        assert _fails(client)
        proxy.heal()
        assert client.ping()
        proxy.cut(silent=True)
        assert _fails(client)


def _fails(client: redis.Redis) -> bool:

    try:
        client.ping()
    except (redis.ConnectionError, redis.TimeoutError):
        return True
    return False
