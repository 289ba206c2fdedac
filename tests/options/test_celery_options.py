"""Celery's options do what the documentation says, and the documentation names exactly those that there are."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psutil
import pytest
from celery.bin.base import CLIContext
from celery.bin.beat import beat
from celery.bin.multi import MultiTool
from celery.bin.worker import worker

from tasks.app import app
from taskyard.cli.celery_options import OptionRefusedError, check_beat_options, check_worker_options
from tests.identity.conftest import MakeProject
from tests.waiting import wait_for
from tests.workers import ROOT

LIMIT = 60  # seconds
PAGE = ROOT / "docs" / "celery-options.md"
CHECKS = {"worker": (worker, check_worker_options), "beat": (beat, check_beat_options)}


def documented(section: str) -> list[str]:
    """The options in the first column of a section's table."""
    text = PAGE.read_text().split(f"## celery {section}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return sorted(re.findall(r"`([^`]+)`", " ".join(rows)))


@pytest.mark.parametrize("name", CHECKS)
def test_the_documentation_names_exactly_the_options_that_exist(name: str) -> None:
    command, _ = CHECKS[name]
    exist = [word for option in command.params for word in (*option.opts, *option.secondary_opts)]
    assert documented(name) == sorted(exist)


def test_the_documentation_names_exactly_the_commands_of_multi() -> None:
    exist = [*MultiTool().commands, *(word for word, _ in MultiTool.reserved_options)]
    assert documented("multi") == sorted(exist)


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("worker", "-P threads --time-limit 5", "--time-limit needs processes"),
        ("worker", "-P solo --soft-time-limit 5", "--soft-time-limit needs processes"),
        ("worker", "-P threads --max-tasks-per-child 5", "--max-tasks-per-child needs processes"),
        ("worker", "-P threads --max-memory-per-child 5", "--max-memory-per-child needs processes"),
        ("worker", "-P threads --pool-start-method spawn", "--pool-start-method needs processes"),
        ("worker", "-P threads --autoscale 5,1", "--autoscale needs processes"),
        ("worker", "-s file", "schedules are in the database"),
        ("worker", "-P processes --time-limit 5 --autoscale 5,1", None),
        ("worker", "-s file --scheduler celery.beat:PersistentScheduler", None),
        ("worker", "-P threads -c 3 -Q celery -X flows -E -O fair", None),
        ("beat", "-s file", "schedules are in the database"),
        ("beat", "--executable python", "--executable"),
        ("beat", "-s file -S celery.beat:PersistentScheduler", None),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(command: str, words: str, says: str | None) -> None:
    made, check = CHECKS[command]
    context = made.make_context(command, words.split(), obj=CLIContext(app=app, no_color=True, workdir=None))
    if says is None:
        check(context)
    else:
        with pytest.raises(OptionRefusedError, match=says):
            check(context)


@pytest.mark.parametrize("option", ["--broker", "--result-backend"])
def test_another_server_for_messages_alone_is_refused(option: str) -> None:
    root = click.Context(click.Command("celery", params=[click.Option([option])]))
    click.Command("celery", params=[click.Option([option])]).parse_args(root, [option, "redis://other/0"])
    context = beat.make_context("beat", [], parent=root, obj=CLIContext(app=app, no_color=True, workdir=None))
    with pytest.raises(OptionRefusedError, match="set REDIS_URL"):
        check_beat_options(context)


@contextmanager
def killed_at_the_end(*pidfiles: Path) -> Iterator[None]:
    """Nothing that was detached outlives the test."""
    try:
        yield
    finally:
        for path in pidfiles:
            if path.exists() and psutil.pid_exists(int(path.read_text())):
                psutil.Process(int(path.read_text())).send_signal(signal.SIGKILL)


@pytest.mark.timeout(240)
def test_a_detached_worker_with_all_kinds_of_options_works_and_ends(make_project: MakeProject) -> None:
    """One worker for many options: each start costs seconds."""
    shop = make_project("shop")
    shop.sends("purged")
    log, pidfile = shop.folder / "w1.log", shop.folder / "w1.pid"
    options = [
        *("-D", "-P", "prefork", "-n", "w1@%h", "--logfile=%n.log", "--pidfile=%n.pid", "-l", "INFO"),
        *(
            "-Q",
            "celery,notes",
            "-X",
            "celery",
            "--autoscale=2,1",
            "--max-tasks-per-child=1",
            "--purge",
            "-E",
            "-O",
            "fair",
        ),
        *("--max-memory-per-child=900000", "--time-limit=60", "--soft-time-limit=50", "--prefetch-multiplier=1"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", "--statedb=%n.state", "-O", "fair"),
    ]
    with killed_at_the_end(pidfile):
        started = shop("worker", *options)
        assert started.code == 0, started.err
        wait_for(lambda: log.exists() and " ready." in log.read_text(), LIMIT, "it is ready")
        assert psutil.pid_exists(int(pidfile.read_text()))
        shop.sends("one", "two", "three")
        wait_for(lambda: log.read_text().count("succeeded in") == 3, LIMIT, "all ran", log.read_text)
        text = log.read_text()
        assert "said purged" not in text
        assert text.count('"celery.redirected"') >= 3, text
        assert len(set(re.findall(r"by (\d+)", text))) == 3  # each in a process of its own
        worker_process = psutil.Process(int(pidfile.read_text()))
        worker_process.terminate()
        wait_for(lambda: not worker_process.is_running(), LIMIT, "it ends", log.read_text)
    assert not pidfile.exists()
    assert (shop.folder / "w1.state").exists()


@pytest.mark.timeout(240)
def test_multi_starts_and_stops_workers(make_project: MakeProject) -> None:
    shop = make_project("shop")
    files = (f"--pidfile={shop.folder}/%n.pid", f"--logfile={shop.folder}/%n.log")
    logs = [shop.folder / "w1.log", shop.folder / "w2.log"]
    pidfiles = [shop.folder / "w1.pid", shop.folder / "w2.pid"]
    with killed_at_the_end(*pidfiles):
        shop("multi", "start", "w1", "w2", "-c", "1", "-Q", "notes", "-l", "INFO", *files)
        wait_for(lambda: all(log.exists() and " ready." in log.read_text() for log in logs), LIMIT, "both are ready")
        shop.sends("hello")
        wait_for(lambda: any("said hello" in log.read_text() for log in logs), LIMIT, "one of them ran it")
        assert shop("multi", "stopwait", "w1", "w2", *files).code == 0
        assert [path for path in pidfiles if path.exists()] == []


@pytest.mark.timeout(240)
def test_a_detached_beat_leads_answers_and_ends(make_project: MakeProject) -> None:
    shop = make_project("shop")
    log, pidfile = shop.folder / "b.log", shop.folder / "b.pid"
    files = (f"--pidfile={pidfile}", f"--logfile={log}")
    with killed_at_the_end(pidfile):
        shop("beat", "--detach", *files, "--enable-remote-control", "-n", "b1@%h", "--max-interval", "1", "-l", "INFO")
        wait_for(lambda: log.exists() and "beat.leads" in log.read_text(), LIMIT, "it leads")
        wait_for(lambda: "b1@" in shop("inspect", "ping").out, LIMIT, "it answers", log.read_text)
        process = psutil.Process(int(pidfile.read_text()))
        process.terminate()
        wait_for(lambda: not process.is_running(), LIMIT, "it ends", log.read_text)
    assert not pidfile.exists()
