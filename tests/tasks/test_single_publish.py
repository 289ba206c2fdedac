"""Single calls on the short path: what they are equal to, and when Celery's own way is taken."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from celery._state import _task_stack  # type: ignore[attr-defined]  # its stubs lack it
from celery.signals import before_task_publish
from kombu.exceptions import OperationalError
from redis import Redis

from taskyard.broker.transport import bulk_publish
from taskyard.tasks.call_options import CallOptions
from taskyard.tasks.current_app import current_app
from taskyard.tasks.platform_task import PlatformTask
from tests.app_broker import use_broker
from tests.servers import Server
from tests.tasks.test_bulk import store, waiting, without_its_own

LATER = datetime(2099, 1, 1, tzinfo=UTC)
OPTIONS: list[CallOptions] = [
    {},
    {"priority": "high", "group_key": "g", "user_id": "ann", "max_attempts": 2, "lifo": True},
    {"time_limit": 9, "soft_time_limit": 5},
    {"eta": datetime(2030, 1, 1, tzinfo=UTC)},
    {"dedup_key": "one", "throttle": timedelta(hours=1)},
]


@pytest.fixture
def broker(valkey: Server) -> Iterator[Redis]:
    """The server that this process enqueues to."""
    use_broker(valkey.url)
    with valkey.client() as client:
        yield client


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the messages that were copies; each test makes its own model."""
    vars(current_app().tasks[store.name]).pop("_publisher", None)
    ids: list[str] = []
    original = bulk_publish.MessageModel.copy

    def note(*words: Any) -> Any:
        made = original(*words)
        ids.append(made[0])
        return made

    monkeypatch.setattr(bulk_publish.MessageModel, "copy", note)
    return ids


@contextmanager
def listening() -> Iterator[None]:
    """With a listener each call goes Celery's own way."""

    def listen(**_: Any) -> None:
        """Change nothing."""

    before_task_publish.connect(listen)
    try:
        yield
    finally:
        before_task_publish.disconnect(listen)


@contextmanager
def inside_a_task(run_id: str, root_id: str | None) -> Iterator[None]:
    """As a handler that enqueues: Celery takes parent and root from the task that runs."""
    running = cast("PlatformTask", store)
    running.push_request(id=run_id, root_id=root_id, called_directly=False)
    _task_stack.push(running)
    try:
        yield
    finally:
        _task_stack.pop()
        running.pop_request()


@pytest.mark.parametrize("options", OPTIONS)
def test_a_copy_is_what_celery_publishes(broker: Redis, copied: list[str], options: CallOptions) -> None:
    store.apply_async(kwargs={"name": "makes the model"}, **options)
    broker.flushall()  # also the dedup key
    short = store.apply_async(kwargs={"name": "same"}, **options)
    found = waiting(broker)
    broker.flushall()
    with listening():
        long = store.apply_async(kwargs={"name": "same"}, **options)

    messages = found | waiting(broker)
    assert copied == [short.id]
    assert without_its_own(messages[short.id]) == without_its_own(messages[long.id])
    assert messages[short.id]["headers"]["origin"] == messages[long.id]["headers"]["origin"]


@pytest.mark.parametrize("root_id", ["the root", None])
def test_a_copy_from_inside_a_task_names_its_parent_and_root(
    broker: Redis, copied: list[str], root_id: str | None
) -> None:
    store.delay(name="makes the model")
    with inside_a_task("the parent", root_id):
        short = store.delay(name="same")
        with listening():
            long = store.delay(name="same")
    outside = store.delay(name="same")

    messages = waiting(broker)
    assert {short.id, outside.id} <= set(copied)
    assert long.id not in copied
    assert without_its_own(messages[short.id]) == without_its_own(messages[long.id])
    for run in (short, long):
        headers = messages[run.id]["headers"]
        assert (headers["parent_id"], headers["root_id"]) == ("the parent", root_id or "the parent")
    headers = messages[outside.id]["headers"]
    assert (headers["parent_id"], headers["root_id"]) == (None, outside.id)


def test_a_taken_dedup_key_gives_the_run_that_holds_it(broker: Redis, copied: list[str]) -> None:
    store.delay(name="makes the model")
    holder = store.apply_async(kwargs={"name": "first"}, dedup_key="k")

    second = store.apply_async(kwargs={"name": "second"}, dedup_key="k")

    assert len(copied) == 2
    assert (second.id, second.is_duplicate, holder.is_duplicate) == (holder.id, True, False)
    assert len(waiting(broker)) == 2


def test_options_that_a_copy_cannot_have_take_celerys_way(broker: Redis, copied: list[str]) -> None:
    store.delay(name="makes the model")

    expiring = store.apply_async(kwargs={"name": "one"}, expires=LATER)
    named = cast("PlatformTask", store).apply_async(kwargs={"name": "two"}, task_id="named-by-the-caller")

    messages = waiting(broker)
    assert not copied
    assert datetime.fromisoformat(messages[expiring.id]["headers"]["expires"]) == LATER
    assert named.id == "named-by-the-caller" in messages


def test_many_threads_share_the_path(broker: Redis) -> None:
    def call(number: int) -> str:
        return str(store.delay(name=str(number)).id)

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(call, range(400)))

    messages = waiting(broker)
    assert len(messages) == 400
    assert [messages[run_id]["body"][1]["name"] for run_id in ids] == [str(number) for number in range(400)]


def test_a_fork_makes_messages_of_its_own(broker: Redis, valkey: Server, tmp_path: Path) -> None:
    """As gunicorn --preload: the parent has called before it forks; in a process that has no threads yet."""
    code = """
import os
from tests.tasks.test_bulk import store
before = store.delay(name="parent")
child = os.fork()
store.delay(name="both")
store.delay(name="both")
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(os.getpid(), child)
"""
    env = {
        **os.environ,
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'none.db'}",
        "PYTHONPATH": ".",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import tasks.app\n{code}"], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    parent, child = done.stdout.split()
    origins = Counter(message["headers"]["origin"].split("@")[0] for message in waiting(broker).values())
    assert origins == {f"gen{parent}": 3, f"gen{child}": 2}


def test_a_call_outlives_a_restart_of_the_broker(broker: Redis, valkey: Server, copied: list[str]) -> None:
    store.delay(name="makes the model")
    valkey.kill()
    valkey.start()

    sent = store.delay(name="after")

    assert copied == [sent.id]
    assert sent.id in waiting(broker)


def test_a_broker_that_is_away_is_an_operational_error(broker: Redis, valkey: Server, copied: list[str]) -> None:
    store.delay(name="makes the model")
    valkey.kill()
    try:
        with pytest.raises(OperationalError):
            store.delay(name="lost")
    finally:
        valkey.start()

    assert len(copied) == 1
    assert [message["body"][1]["name"] for message in waiting(broker).values()] == ["makes the model"]


def test_what_travels_is_json(broker: Redis, copied: list[str]) -> None:
    store.delay(name="makes the model")
    text = 'Grüße "\\ \u2028 🙂'
    sent = store.delay(name=text)

    assert copied == [sent.id]
    assert json.loads(json.dumps(waiting(broker)[sent.id]["body"][1]))["name"] == text
