"""Durations are measured by the broker's clock, whatever the clocks of callers and workers say."""

import time

import pytest

from tests.clocks import off_by
from tests.identity.conftest import MakeProject, make_project
from tests.servers import Server
from tests.waiting import wait_for

__all__ = ["make_project"]

LIMIT = 60  # seconds
BUSY = 30  # seconds that a busy machine may take for one step
pytestmark = pytest.mark.timeout(240)
PLAIN = """
@app.task(name="shop.plain", queue="notes")
def plain(text):
    logging.getLogger("shop").info("said %s", text)


@app.task(name="shop.again", bind=True, max_retries=1, queue="later")
def again(self):
    raise self.retry(countdown=60)
"""
SENDS = """
import shop
shop.plain.apply_async(("x",), countdown=60, task_id="countdown")
shop.note.apply_async(kwargs={"text": "x"}, countdown=60, task_id="typed-countdown")
shop.plain.apply_async(("x",), countdown=86400 * 60, task_id="far")
shop.plain.apply_async(("x",), expires=60, task_id="expires")
shop.note.apply_async(kwargs={"text": "x"}, expires=60, task_id="typed-expires")
shop.app.send_task("shop.plain", ("x",), expires=60, countdown=60, task_id="by-name")
"""


def from_now(milliseconds: str | float | None) -> float:
    assert milliseconds is not None
    return float(milliseconds) / 1000 - time.time()


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_the_clock_of_a_caller_does_not_matter(make_project: MakeProject, valkey: Server, offset: str) -> None:
    """`countdown=60` of a caller an hour fast was due in 3,660 s; an hour slow, at once."""
    shop = make_project("shop", PLAIN)
    sent = shop.runs(SENDS, **off_by(offset))
    assert sent.code == 0, sent.err
    assert "the clock of this host differs from the broker's" in sent.err
    with valkey.client() as client:
        for run in ("countdown", "typed-countdown", "by-name"):
            assert 60 - BUSY < from_now(client.zscore("taskyard:delayed:notes", run)) <= 60
        assert 86400 * 60 - BUSY < from_now(client.zscore("taskyard:delayed:notes", "far")) <= 86400 * 60
        for run in ("expires", "typed-expires", "by-name"):
            assert 60 - BUSY < from_now(client.hget(f"taskyard:message:{run}", "e")) <= 60


def test_the_clock_of_a_worker_does_not_matter(make_project: MakeProject, valkey: Server) -> None:
    """Two hours fast, it cancelled what had minutes left; its retries were due by its own clock."""
    shop = make_project("shop", PLAIN)
    shop.runs(
        "import shop\n"
        "shop.plain.apply_async(('plain',), expires=600)\n"
        "shop.note.apply_async(kwargs={'text': 'typed'}, expires=600)\n"
        "shop.plain.apply_async(('late',), expires=1)\n"
        "shop.again.delay()\n"
    )
    ends = time.time() + 1.5
    wait_for(lambda: time.time() > ends, LIMIT, "the last one has expired")
    worker = shop.worker("-Q", "notes,later", **off_by("+2h"))
    with valkey.client() as client:
        wait_for(lambda: client.zcard("taskyard:delayed:later"), LIMIT, "it asks for a retry", worker.tail)
        ((_, due),) = client.zrange("taskyard:delayed:later", 0, 0, withscores=True)
        assert 60 - BUSY < from_now(due) <= 60
    wait_for(lambda: "said typed" in worker.log.read_text(), LIMIT, "the typed one runs", worker.tail)
    wait_for(lambda: "said plain" in worker.log.read_text(), LIMIT, "the plain one runs", worker.tail)
    assert "said late" not in worker.log.read_text()
    assert "the clock of this host differs from the broker's" in worker.log.read_text()
