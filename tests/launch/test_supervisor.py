"""The supervisor with real processes: crashes are restarted, all stop in order, and nothing is left behind."""

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.launch.up_process import LIMIT, Up, all_gone
from tests.waiting import stays_true, wait_for

SLEEPS = "import time; print('here'); time.sleep(600)"
DIES = "raise SystemExit(3)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('here'); time.sleep(600)"
HAS_A_CHILD = "import os, time; os.fork(); os.write(1, b'here\\n'); time.sleep(600)"
# Ends a moment after SIGTERM, and says when it was asked and when it has ended.
SLOW = """
import signal, sys, time
def end(*_):
    print('asked')
    time.sleep(0.3)
    print('over')
    sys.exit()
signal.signal(15, end)
print('here')
while True: time.sleep(1)
"""
# Ends at the second SIGTERM only.
WORKING = """
import os, signal, time
def end(*_):
    signal.signal(15, lambda *_: os._exit(0))
    print('asked')
signal.signal(15, end)
print('here')
while True: time.sleep(1)
"""


def start(folder: Path, *programs: dict[str, Any], **options: object) -> Up:
    words = json.dumps({"programs": programs, **options})
    return Up(["-m", "tests.launch.small_up", words], folder)


def test_a_killed_process_comes_back_and_the_others_do_not_notice(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "one", "code": SLEEPS}, {"name": "two", "code": SLEEPS}) as up:
        first, other = up.pid_of("one"), up.pid_of("two")
        os.kill(first, signal.SIGKILL)
        up.wait_says("process.died", process="one", how="signal SIGKILL")
        up.wait_says("process.started", count=2, process="one")
        assert up.pid_of("one") != first
        assert len(up.says("process.started", process="two")) == 1
        assert psutil.pid_exists(other)
        family = up.family()
        up.signal()
        assert up.wait_ended() == 0
        assert all_gone(family)


@pytest.mark.parametrize("stage", ["WORKERS", "BEAT", "WATCHERS"])
def test_a_crash_loop_of_one_process_does_not_stop_the_others(tmp_path: Path, stage: str) -> None:
    """A message that kills the workers of one profile is no reason to stop the queues of the others."""
    bad = {"name": "bad", "code": DIES, "stage": stage, "is_vital": stage != "WATCHERS"}
    with start(tmp_path, bad, {"name": "good", "code": SLEEPS}, delay=0.2, limit=2) as up:
        loop = up.wait_says("process.crash_loop", process="bad")
        assert (loop["level"], loop["stops_all"]) == ("error", False)
        assert [each["restart_in"] for each in up.says("process.died", process="bad")] == [0.2, 0.4, 60.0]
        stays_true(lambda: not up.says("process.exited", process="good"), 0.5, "the other keeps running")
        up.signal()
        assert up.wait_ended() == 0


@pytest.mark.parametrize("stage", ["WORKERS", "SERVERS"])
def test_when_no_worker_or_no_server_stays_up_all_stop_with_exit_code_1(tmp_path: Path, stage: str) -> None:
    """A service manager must notice."""
    bad = [{"name": name, "code": DIES, "stage": stage} for name in ("one", "two")]
    with start(tmp_path, *bad, {"name": "beat", "code": SLEEPS, "stage": "BEAT"}, limit=1) as up:
        up.wait_says("process.started", process="beat")
        family = up.family()
        assert up.wait_ended() == 1
        assert up.says("process.crash_loop", stops_all=True)
        assert up.says("process.exited", process="beat")
        assert all_gone(family)


def test_all_end_in_order_beat_workers_watchers_servers(tmp_path: Path) -> None:
    stages = ["SERVERS", "WATCHERS", "WORKERS", "BEAT"]
    with start(tmp_path, *({"name": name, "code": SLOW, "stage": name} for name in stages)) as up:
        for name in stages:
            up.wait_says("here", process=name)
        up.signal(signal.SIGINT)
        assert up.wait_ended() == 0
        said = [(each["event"], each["process"]) for each in up.events if each["event"] in {"asked", "over"}]
        assert said == [(word, name) for name in reversed(stages) for word in ("asked", "over")]


def test_a_second_signal_is_passed_on_and_ends_what_still_works(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "worker", "code": WORKING, "stop_seconds": 600}) as up:
        up.wait_says("here", process="worker")
        up.signal()
        up.wait_says("asked", process="worker")
        stays_true(lambda: up.process.poll() is None, 0.5, "it waits for the worker")
        up.signal()
        assert up.wait_ended(LIMIT) == 0


def test_a_third_signal_kills(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "worker", "code": STUBBORN, "stop_seconds": 600}) as up:
        up.wait_says("here", process="worker")
        family = up.family()
        for count in (1, 2, 3):
            up.signal()
            up.wait_says("up.signal", count=count)
        up.wait_ended()
        assert all_gone(family)


def test_what_does_not_end_in_its_time_is_killed_and_that_is_a_failure(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "worker", "code": STUBBORN, "stop_seconds": 0.5}) as up:
        up.wait_says("here", process="worker")
        family = up.family()
        up.signal()
        assert up.wait_ended() == 1
        assert up.says("process.killed", process="worker")
        assert all_gone(family)


def test_what_a_killed_process_leaves_behind_is_killed_before_it_starts_again(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "worker", "code": HAS_A_CHILD}) as up:
        up.wait_says("here", count=2, process="worker")
        left = psutil.Process(up.pid_of("worker")).children()
        os.kill(up.pid_of("worker"), signal.SIGKILL)
        up.wait_says("process.started", count=2, process="worker")
        wait_for(lambda: all_gone(left), LIMIT, "the child of the killed process is gone")


def test_nothing_outlives_an_up_that_is_killed(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "one", "code": SLEEPS}, {"name": "two", "code": SLEEPS}) as up:
        up.wait_says("here", count=1, process="one")
        up.wait_says("here", count=1, process="two")
        family = up.family()
        up.process.kill()
        wait_for(lambda: all_gone(family), LIMIT, "the kernel has ended them")


def test_what_ignores_sigterm_does_not_outlive_a_killed_up_either(tmp_path: Path) -> None:
    """Flower does, when its broker went away at the same moment."""
    with start(tmp_path, {"name": "flower", "code": STUBBORN, "orphan_signal": "SIGKILL"}) as up:
        up.wait_says("here", process="flower")
        family = up.family()
        up.process.kill()
        wait_for(lambda: all_gone(family), LIMIT, "the kernel has ended it")


def test_a_watcher_that_has_to_be_killed_is_no_failure(tmp_path: Path) -> None:
    watcher = {"name": "flower", "code": STUBBORN, "stage": "WATCHERS", "is_vital": False, "stop_seconds": 0.5}
    with start(tmp_path, watcher) as up:
        up.wait_says("here", process="flower")
        up.signal()
        assert up.wait_ended() == 0
        assert up.says("process.killed", process="flower")


def test_under_nohup_the_end_of_the_terminal_ends_nothing(tmp_path: Path) -> None:
    """It starts its program with SIGHUP ignored."""
    ignoring = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from tests.launch.small_up import main; main()"
    )
    words = json.dumps({"programs": [{"name": "one", "code": SLEEPS}]})
    with Up(["-c", ignoring, words], tmp_path) as up:
        up.wait_says("here", process="one")
        up.signal(signal.SIGHUP)
        stays_true(lambda: up.process.poll() is None, 0.5, "it goes on")
        up.signal()
        assert up.wait_ended() == 0
        assert [each["signal"] for each in up.says("up.signal")] == ["SIGTERM"]


def test_delays_double_up_to_the_limit_of_consecutive_crashes(tmp_path: Path) -> None:
    with start(tmp_path, {"name": "bad", "code": DIES}, delay=0.1, limit=4) as up:
        assert up.wait_ended() == 1
        *pauses, last = [each["restart_in"] for each in up.says("process.died")]
        assert (len(pauses), last) == (4, 60.0)
        assert all(later == 2 * earlier for earlier, later in pairwise(pauses))
