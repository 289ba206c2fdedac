"""The demo: its feed, its verdict, and that none of its processes outlives it."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from scripts.demo.counting import MUST_BE, Tally
from scripts.demo.environment import ATTEMPTS, demo_settings
from scripts.demo.feed import TYPES, market_feed
from taskyard.settings.loading import load_settings
from taskyard.webhooks.event_types import check_type
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 4  # Valkey, worker, beat, Flower
START_LIMIT = 90  # seconds, on a busy machine
END_LIMIT = 200  # seconds


def test_the_feed_is_the_same_at_every_run_and_has_every_type() -> None:
    events = list(market_feed(200))
    assert events == list(market_feed(200))
    assert len(events) == 200
    assert {event.type for event in events} == set(TYPES)
    assert all(check_type(event.type) for event in events)


def test_the_settings_of_the_demo_are_valid_and_give_the_attempts_that_it_expects(tmp_path: Path) -> None:
    settings = load_settings(demo_settings(tmp_path, "redis://127.0.0.1:1/0"))
    assert len(settings.webhook_retry_delays) + 1 == ATTEMPTS


def test_a_tally_as_it_must_be_has_no_differences() -> None:
    for name, (delivered, retried, exhausted, attempts) in MUST_BE.items():
        latencies = [timedelta(milliseconds=number) for number in range(10)]
        counts = (delivered * 10, retried * 10, exhausted * 10, attempts * 10)
        good = Tally(name, *counts, requests=attempts * 10, faults=(), latencies=latencies)
        assert good.differences(10) == []
        lost = Tally(name, *counts, requests=attempts * 10 - 1, faults=("x",), latencies=latencies[1:])
        assert len(lost.differences(10)) == 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_no_process_outlives_the_demo(number: signal.Signals, code: int, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "scripts.demo", "--keep"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started: list[psutil.Process] = []
    try:
        family = psutil.Process(demo.pid)
        wait_for(lambda: len(family.children()) == PROCESSES, START_LIMIT, "the demo starts its processes")
        wait_for(lambda: b" ready." in _log(tmp_path, "worker"), START_LIMIT, "the worker is ready")
        started = family.children(recursive=True)
        os.kill(demo.pid, number)
        assert demo.wait(END_LIMIT) == code
        wait_for(lambda: not any(_runs(each) for each in started), END_LIMIT, "all of them end")
    finally:
        for each in started:
            if _runs(each):
                each.kill()
        if demo.poll() is None:
            demo.kill()
            demo.wait()


def _log(folder: Path, name: str) -> bytes:
    path = folder / ".run" / "demo" / f"{name}.log"
    return path.read_bytes() if path.exists() else b""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
