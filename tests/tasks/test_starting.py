"""A worker does not start with tasks that cannot run, or settings that none of its tasks could use."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tasks.app import app
from taskyard.settings.group import SettingsError
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload
from taskyard.tasks.start_checks import NotAwaitedError, check_settings, refuse_coroutines
from tests.workers import ROOT

LIMIT = 100  # seconds; a `celery` call takes 2 s of CPU, and the machine may be busy

KEY = "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
QUEUES = {"WEBHOOK": "webhook-deliveries", "CHAIN": "reconciliation", "BACKUP": "backup-verification"}


def check(given: dict[str, str], queues: list[str] | None = None) -> None:
    app.loader.import_default_modules()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        current_settings.cache_clear()
        try:
            check_settings(queues)
        finally:
            current_settings.cache_clear()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"WEBHOOK_CA_FILE": "/no/such.pem"}, "WEBHOOK_CA_FILE: /no/such.pem: No such file"),
        ({"WEBHOOK_CA_FILE": "/"}, "WEBHOOK_CA_FILE: /: "),
        ({"WEBHOOK_CA_FILE": __file__}, "no certificate in PEM"),
        ({"CHAIN_PROVIDER": "evm"}, "needs CHAIN_RPC_URL and CHAIN_CONTRACT"),
        ({"CHAIN_PROVIDER": "evm", "CHAIN_RPC_URL": "https://n", "CHAIN_CONTRACT": "0x1"}, "CHAIN_CONTRACT: an EVM"),
        ({"BACKUP_PROFILES": "/no/such"}, "BACKUP_PROFILES: /no/such is not a folder"),
        ({"BACKUP_PG_BIN": __file__}, "BACKUP_PG_BIN: .* is not a folder"),
        ({"BACKUP_EPHEMERAL_DB_URL": "mysql://h/d"}, "BACKUP_EPHEMERAL_DB_URL: not a PostgreSQL URL"),
        ({"BACKUP_LIVE_DB_URLS": "sqlite:///a.db,prod"}, "BACKUP_LIVE_DB_URLS: not a PostgreSQL URL"),
        ({"BACKUP_SLACK_WEBHOOK_URL": "https://hooks.example/x"}, "WEBHOOK_SECRET_KEYS is not set"),
        ({"BACKUP_SLACK_WEBHOOK_URL": "http://h.example/x", "WEBHOOK_SECRET_KEYS": KEY}, "must start with https"),
    ],
)
def test_what_no_task_could_use_is_said_before_the_first_message(given: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        check(given)
    queue = QUEUES[next(iter(given)).partition("_")[0]]
    with pytest.raises(SettingsError, match=says):
        check(given, [queue])
    check(given, ["celery"])  # its workers need none of it


def test_what_may_still_come_stops_no_worker(tmp_path: Path) -> None:
    """A dump is made at night, and profiles are read anew for each run."""
    check({"BACKUP_PROFILES": str(tmp_path), "BACKUP_DUMP_PATH": str(tmp_path / "tonight" / "*.dump")})


def test_each_fault_has_its_line() -> None:
    with pytest.raises(SettingsError) as caught:
        check({"WEBHOOK_CA_FILE": "/no/such.pem", "BACKUP_PROFILES": "/no/such"})
    assert sorted(line.partition(":")[0] for line in caught.value.message.splitlines()) == [
        "BACKUP_PROFILES",
        "WEBHOOK_CA_FILE",
    ]


def test_a_coroutine_that_nobody_would_await_is_refused() -> None:
    """Celery takes it for the result, so that the task is done without having begun."""
    plain = Celery("plain", set_as_current=False)

    async def waits(*_: Any) -> None:
        pass

    async def gives() -> Any:
        yield 1

    plain.task(name="plain.waits", shared=False)(waits)
    plain.task(name="plain.bound", shared=False, bind=True)(waits)
    plain.task(name="plain.again", shared=False, autoretry_for=(OSError,))(waits)
    plain.task(name="plain.gives", shared=False)(gives)
    plain.task(name="plain.def", shared=False)(check)
    with pytest.raises(NotAwaitedError, match=r": plain\.again, plain\.bound, plain\.gives, plain\.waits;"):
        refuse_coroutines(plain)


def test_coroutines_of_the_platform_are_awaited() -> None:
    @task("tests.starting", Payload, queue=MAINTENANCE)
    async def awaited(payload: Payload) -> None:
        """Do nothing."""

    refuse_coroutines(app)


def test_a_worker_with_such_a_task_does_not_start() -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.tasks.plain_async", "worker"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(
        "Error: async def, which only Taskyard's own @task awaits: plain.waits;"
    )


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "celery.concurrency.gevent:TaskPool"])
def test_a_pool_of_green_threads_is_refused_before_anything_starts(pool: str, tmp_path: Path) -> None:
    start = f"from tasks.app import app; app.Worker(pool={pool!r}).start()"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert ended.returncode == 1
    assert "is not supported: leases and shutdown rely on real threads" in ended.stderr
    assert "use -P threads, or async def handlers in the asyncio pool" in ended.stderr


@pytest.mark.parametrize("words", [["worker"], ["worker", "--detach"], ["multi", "start", "one", "--pidfile=%n.pid"]])
def test_a_pool_of_green_threads_by_setting_is_one_line_and_an_exit_code(words: list[str], tmp_path: Path) -> None:
    """Also where the worker itself would start in the background, and nobody would see its error."""
    (tmp_path / "green.py").write_text("from tasks.app import app\napp.conf.worker_pool = 'gevent'\n")
    app_first = ["-A", "green", *words] if words[0] == "worker" else [*words, "-A", "green", "--logfile=%n.log"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ended = subprocess.run(
        [sys.executable, "-m", "celery", *app_first],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    says_failed = "FAILED" in ended.stdout if words[0] == "multi" else ended.returncode == 2
    assert says_failed  # the exit code of `celery multi start` is 0 whatever its nodes end with
    assert "Error: the pool gevent is not supported: leases and shutdown rely on real threads" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("*.pid"))
