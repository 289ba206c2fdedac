"""A rolling deploy: the last release's worker beside this one's, on the same broker and on this release's schema."""

import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import select
from sqlmodel import col

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.history.events import stream_key
from taskyard.history.models import Attempt, Run
from tests.system.conftest import PlatformMaker
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import wait_for
from tests.webhooks.receivers import Captured, Receiver, Reply
from tests.workers import ROOT

# A landed state from just before 0.2.0: the first with the tables of that release.
LAST_RELEASE = "88d556e"
QUEUES = ("webhook-deliveries", "webhook-slow")  # a delivery may move from one to the other: its first run is cancelled
OF_EACH = 20  # deliveries that each release enqueues; each fails once, so that one release's retry is the other's task
REQUESTS = OF_EACH * 2 * 2
THINKING = 0.2  # seconds of the receiver: a worker would have to stand still for two to miss one release's messages
EMIT = """
import sys
import tasks.app
from taskyard.database.engine import open_session
from taskyard.webhooks.outbox import emit
for number in range(int(sys.argv[1])):
    with open_session() as session, session.begin():
        print(emit(session, "market.resolved", {"n": number}))
"""


@pytest.fixture
def last_release(tmp_path: Path) -> Path:
    """The folder of the last release's code."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", LAST_RELEASE]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history back to {LAST_RELEASE} is not here (a shallow clone?): {archive.stderr.decode()}")
    folder = tmp_path / "last-release"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def test_old_and_new_workers_share_the_work_and_the_old_one_ends_in_the_middle(
    make_postgres_platform: PlatformMaker, receiver: Receiver, last_release: Path
) -> None:
    """Each runs what both have enqueued and records it; nothing is lost and nothing happens twice."""
    platform = make_postgres_platform(WORKER_SHUTDOWN_SECONDS="20")
    platform.webhook_rows.endpoint(url=receiver.url)
    receiver.decides(fails_once())
    with Redis.from_url(platform.broker.url) as client:
        control = QueueControl(client)
        for queue in QUEUES:
            control.pause(queue)
        old = platform.worker("old", slots=2, root=last_release)
        by_old = emit_with(last_release)
        by_new = platform.emit(OF_EACH)
        old.ready()  # before the other starts, so that it writes the audit until it ends
        platform.worker("new", slots=2).ready()
        for queue in QUEUES:
            control.resume(queue)

        receiver.wait_for(REQUESTS - 8, timeout=LIMIT)  # each has four requests or so to go
        old.term()
        assert old.container.wait_ended(LIMIT) == 0
        platform.wait_for_states(delivered=OF_EACH * 2)

        wait_for(lambda: endings(platform)["succeeded"] == OF_EACH * 2, LIMIT, "the history knows how all ended")
        assert client.xlen(f"{stream_key('taskyard:')}:refused") == 0, "each writer can write what both tell"
    assert set(endings(platform)) <= {"succeeded", "cancelled"}
    assert Counter(request.webhook_id for request in receiver.requests) == dict.fromkeys(by_old + by_new, 2)
    assert platform.dead_letters() == []
    pairs = who_ran_whose(platform, old_ones={platform.delivery_of(event_id) for event_id in by_old})
    assert pairs == {("old", "old@test"), ("old", "new@test"), ("new", "old@test"), ("new", "new@test")}


def fails_once() -> Callable[[Captured], Reply]:
    """Answer the first attempt of each delivery with 500."""
    seen: set[str] = set()

    def reply(request: Captured) -> Reply:
        is_first = request.webhook_id not in seen
        seen.add(request.webhook_id)
        return Reply(500 if is_first else 200, delay=THINKING)

    return reply


def emit_with(release: Path) -> list[str]:
    """Let an app of that release emit; return the events' ids."""
    command = [sys.executable, "-c", EMIT, str(OF_EACH)]
    env = {**os.environ, "PYTHONPATH": str(release)}
    said = subprocess.run(command, env=env, cwd=release, capture_output=True, check=True, text=True, timeout=LIMIT)
    return said.stdout.split()


def endings(platform: WebhookPlatform) -> Counter[str]:
    """How many runs have ended in which state."""
    with platform.database.session() as session:
        return Counter(session.scalars(select(col(Run.state)).where(col(Run.finished_at).is_not(None))))


def who_ran_whose(platform: WebhookPlatform, old_ones: set[UUID]) -> set[tuple[str, str | None]]:
    """Pairs of the release that enqueued and the worker that ran it."""
    with platform.database.session() as session:
        rows = session.execute(
            select(col(Run.args), col(Attempt.worker)).join(Attempt, col(Attempt.run_id) == col(Run.id))
        )
        return {("old" if UUID(args["delivery_id"]) in old_ones else "new", worker) for args, worker in rows}
