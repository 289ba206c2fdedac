"""The compose file in real containers: 1,000 deliveries, a broker that is killed, more workers, and an orderly end."""

import base64
import urllib.error
import urllib.request
from collections.abc import Iterator
from time import monotonic

import pytest

from tests.deployment.stack import BUILD_LIMIT, IMAGE, LIMIT, Stack
from tests.docker_engine import require_engine
from tests.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
TASKS = 1000
LONG_LIVED = 7  # containers of docker-compose.yml: broker, database, two kinds of workers, two beats, Flower
EMIT = f"""
from taskyard.database.engine import open_session
from taskyard.webhooks.outbox import emit
with open_session() as session, session.begin():
    for number in range({TASKS}):
        emit(session, "market.closed", {{"number": number}})
"""
COUNT = """
SELECT (SELECT count(*) FROM taskyard_webhook_deliveries WHERE state = 'delivered'),
    (SELECT count(*) FROM taskyard_runs WHERE task = 'webhooks.deliver' AND state = 'succeeded'),
    (SELECT count(*) FROM taskyard_runs WHERE task = 'webhooks.deliver'),
    (SELECT count(*) FROM taskyard_dead_letters),
    (SELECT count(DISTINCT worker) FROM taskyard_attempts JOIN taskyard_runs AS runs ON runs.id = run_id
        WHERE task = 'webhooks.deliver')
"""


@pytest.fixture
def stack() -> Iterator[Stack]:
    require_engine()
    with Stack() as stack:
        yield stack


def test_a_thousand_tasks_outlive_the_broker_in_containers(stack: Stack) -> None:
    """Up to healthy, tasks, the broker killed in the middle, more workers, down: all have succeeded."""
    stack.compose("build", "migrate", limit_seconds=BUILD_LIMIT)
    began = monotonic()
    stack.compose("up", "--detach")
    stack.wait_healthy(LONG_LIVED)
    print(f"healthy after {monotonic() - began:.0f} s")  # noqa: T201 - `-rP` shows it; docs/deployment.md quotes it
    print(f"image: {int(stack.docker('image', 'inspect', '--format', '{{.Size}}', IMAGE)) / 1e6:.0f} MB")  # noqa: T201 - as above
    assert [status_of_flower(stack, login) for login in ("", "operator:wrong", stack.flower_login)] == [401, 401, 200]

    celery = ("exec", "-T", "worker-io", "celery", "-A", "tasks")
    stack.compose(*celery, "webhooks", "endpoints", "add", "http://receiver:8000/hook", "--event", "market.*")
    stack.python(EMIT)
    wait_for(lambda: len(stack.received()) >= TASKS // 4, LIMIT, "a quarter has arrived")
    (valkey,) = stack.containers("valkey")
    stack.docker("kill", "--signal", "KILL", valkey["Id"])
    assert len(set(stack.received())) < TASKS, "the broker was killed in the middle"
    stack.docker("start", valkey["Id"])
    stack.compose("up", "--detach", "--no-recreate", "--scale", "worker-io=3")
    stack.wait_healthy(LONG_LIVED + 2)
    wait_for(lambda: len(set(stack.received())) == TASKS, LIMIT, "all have arrived")
    wait_for(lambda: have_all_succeeded(stack), LIMIT, "all have succeeded", lambda: str(counts(stack)))
    _, _, runs, dead_letters, workers = counts(stack)
    assert dead_letters == 0
    print(f"{len(stack.received())} requests for {TASKS} deliveries, {runs} runs, {workers} workers")  # noqa: T201 - as above

    stack.compose("stop")
    codes = {each["Name"]: each["State"]["ExitCode"] for each in stack.containers() if "receiver" not in each["Name"]}
    assert set(codes.values()) == {0}, codes


def status_of_flower(stack: Stack, login: str) -> int:
    """What Flower answers to this `user:password`."""
    request = urllib.request.Request(f"http://127.0.0.1:{stack.flower_port}/")
    if login:
        request.add_header("authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def have_all_succeeded(stack: Stack) -> bool:
    """Whether all is delivered, and no run is left; the sweeper may have asked for a delivery a second time."""
    delivered, succeeded, runs, *_ = counts(stack)
    return delivered == TASKS and succeeded == runs >= TASKS


def counts(stack: Stack) -> list[int]:
    """Deliveries that arrived, runs that succeeded, all runs, dead letters, workers that had a part."""
    return [int(word) for word in stack.sql(COUNT).split("|")]
