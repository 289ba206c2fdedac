"""`celery -A ... up` for real: an embedded Valkey, workers and beat; a killed worker, a signal, and nothing lost."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import redis

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.launch import embedded_server
from taskyard.launch.programs import programs
from taskyard.settings.loading import current_settings, is_broker_given, load_settings
from taskyard.settings.profiles import PROFILES
from taskyard.settings.queues import QUEUES
from tests.app_broker import use_broker
from tests.launch.app import hold
from tests.launch.up_process import Up, all_gone
from tests.waiting import wait_for
from tests.workers import ROOT

LIMIT = 100  # seconds, on a busy machine
pytestmark = pytest.mark.timeout(300)


def numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def start_up(folder: Path, slots: int, lease_ms: int) -> Up:
    environment = {
        "TASKYARD_DATA": str(folder / "data"),
        "WORKER_COUNT": "2",
        "WORKER_QUEUE_CONCURRENCY": str(slots),
        "WORKER_QUEUE_STALLED_INTERVAL": str(lease_ms),
        "WORKER_SHUTDOWN_SECONDS": "20",
        "LOG_FORMAT": "json",
    }
    return Up(["-m", "celery", "-A", "tests.launch.app", "up", "--no-flower"], folder, environment)


@pytest.fixture
def up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Up]:
    with start_up(tmp_path, *request.param) as started:
        yield started


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("up", "slots", "waiting"),
    # A starved process renews late, and its tasks run again: where all are counted the lease is long.
    [((2, 5_000), 2, 8), pytest.param((5, 10_000), 5, 500, marks=pytest.mark.chaos)],
    indirect=["up"],
    ids=["short", "10 run and 500 wait"],
)
def test_a_worker_is_killed_and_up_is_ended_and_no_task_is_lost_or_run_twice(
    up: Up, tmp_path: Path, slots: int, waiting: int
) -> None:
    """
    A SIGKILL runs the tasks of its slots again, a SIGTERM runs none twice.

    What lost its worker runs alone: the first of them here, the others when it has ended.
    """
    url = up.wait_says("up.valkey")["url"]
    use_broker(url)
    client = redis.Redis.from_url(url)
    control = QueueControl(client)
    wait_for(lambda: control.counts("celery").consumers == 2, LIMIT, "both workers listen", up.tail)
    for number in range(2 * slots):
        hold.delay(folder=str(tmp_path), number=number)

    def seen() -> str:
        return f"started {numbers(tmp_path / 'started')}, {control.counts('celery')}\n{up.tail()}"

    wait_for(lambda: len(numbers(tmp_path / "started")) == 2 * slots, LIMIT, "all slots are taken", seen)

    os.kill(up.pid_of("io-1"), signal.SIGKILL)
    up.wait_says("process.started", count=2, process="io-1")
    wait_for(lambda: control.counts("celery").consumers == 2, LIMIT, "it listens again", up.tail)
    wait_for(lambda: len(numbers(tmp_path / "started")) > 2 * slots, LIMIT, "one of its tasks runs again", seen)
    assert sorted(Counter(numbers(tmp_path / "started")).values()) == [1] * (2 * slots - 1) + [2]

    for number in range(waiting):
        hold.delay(folder=str(tmp_path), number=2 * slots + number)
    family = up.family()
    server = up.pid_of("valkey")
    up.signal(signal.SIGTERM)
    wait_for(lambda: up.says("process.exited", process="beat"), LIMIT, "beat is ended first", up.tail)
    wait_for(lambda: control.counts("celery").active == slots + 1, LIMIT, "only what runs is left", up.tail)
    assert control.counts("celery").waiting == waiting + slots - 1
    (tmp_path / "go").touch()
    wait_for(lambda: len({*numbers(tmp_path / "ended")}) == slots + 1, LIMIT, "what ran has ended", up.tail)
    assert up.wait_ended() == 0, up.tail()
    assert len({*numbers(tmp_path / "started")}) == 2 * slots, "the rest did not start"
    assert psutil.pid_exists(server) is False
    assert all_gone(family)
    client.close()


def test_every_queue_is_served_by_a_profile() -> None:
    served = [name for profile in PROFILES for name in profile.queues]
    assert sorted(served) == sorted(queue.name for queue in QUEUES)


def test_the_settings_say_how_many_processes_and_slots_there_are() -> None:
    settings = load_settings({"WORKER_COUNT": "3", "WORKER_QUEUE_CONCURRENCY": "7"})
    commands = {each.name: " ".join(each.command) for each in programs("shop", settings, {}, flower=True)}
    assert list(commands) == ["io-1", "io-2", "io-3", "prefork-1", "beat", "flower"]
    assert "-A shop --quiet worker --hostname io-2@%h --pool threads --concurrency 7 " in commands["io-2"]
    assert "--pool prefork --concurrency 3 --queues backup-verification" in commands["prefork-1"]


def test_a_worker_has_its_shutdown_time_and_some_grace() -> None:
    settings = load_settings({"WORKER_SHUTDOWN_SECONDS": "40"})
    (worker, *_) = programs(None, settings, {}, flower=False)
    assert timedelta(seconds=worker.stop_seconds) == timedelta(seconds=45)


def test_a_second_up_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Two servers on one append-only file would destroy it."""
    environment = {"TASKYARD_DATA": str(tmp_path / "data"), "LOG_FORMAT": "json", "WORKER_COUNT": "1"}
    words = ["-m", "celery", "-A", "tests.launch.app", "up", "--no-flower"]
    (tmp_path / "second").mkdir()
    with Up(words, tmp_path, environment) as first:
        first.wait_says("up.valkey")
        with Up(words, tmp_path / "second", environment) as second:
            assert second.wait_ended(LIMIT) == 1
            assert "set a different TASKYARD_DATA" in second.tail()
        first.signal()
        first.wait_ended()


def test_the_server_of_a_killed_up_keeps_the_folder_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be writing; here it is suspended."""
    monkeypatch.setattr(embedded_server, "DEFAULT_PORT", 0)
    code = (
        "import time; from pathlib import Path; from taskyard.launch import embedded_server as server\n"
        "server.DEFAULT_PORT = 0\n"
        f"with server.embedded_valkey(Path({str(tmp_path)!r})) as valkey:\n"
        "    print(valkey.pid, flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as up:
        assert up.stdout is not None
        server = psutil.Process(int(up.stdout.readline()))
        server.suspend()
        up.kill()
    try:
        monkeypatch.setattr(embedded_server, "LOCK_TIMEOUT", 0.2)
        with pytest.raises(embedded_server.FolderInUseError), embedded_server.embedded_valkey(tmp_path):
            pass
    finally:
        server.resume()
    monkeypatch.setattr(embedded_server, "LOCK_TIMEOUT", LIMIT)
    with embedded_server.embedded_valkey(tmp_path) as valkey:
        assert valkey.pid != server.pid


def test_the_embedded_server_takes_another_port_when_the_usual_one_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(embedded_server, "DEFAULT_PORT", other.getsockname()[1])
        with embedded_server.embedded_valkey(tmp_path) as valkey:
            assert valkey.port != embedded_server.DEFAULT_PORT


def test_commands_without_redis_url_find_the_server_of_a_running_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the usual port in use they talked to another Redis, silently; a server that has ended is not believed."""
    monkeypatch.setattr(embedded_server, "DEFAULT_PORT", 0)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("TASKYARD_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def found() -> str:
        current_settings.cache_clear()
        return current_settings().redis_url

    usual = load_settings({}).redis_url
    try:
        with embedded_server.embedded_valkey(tmp_path / "valkey") as valkey:
            assert found() == valkey.url
            left_behind = (tmp_path / "valkey" / "url").read_text()
            assert not is_broker_given()
        assert found() == usual
        (tmp_path / "valkey" / "url").write_text(left_behind)  # as a killed `up` leaves it
        assert found() == usual
    finally:
        current_settings.cache_clear()
