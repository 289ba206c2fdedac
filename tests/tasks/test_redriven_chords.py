"""A redriven member of a chord lets the body run, or the redrive says before anything that it cannot."""

import pytest

from tests.identity.conftest import MakeProject, make_project
from tests.identity.project import Project
from tests.waiting import wait_for
from tests.workers import Worker

__all__ = ["make_project"]

LIMIT = 60  # seconds
pytestmark = pytest.mark.timeout(300)
CHORD = """
import time
from pathlib import Path

from celery import chord
from taskyard import PermanentError


class Part(Payload):
    number: int
    waits_for: str = ""


@task("shop.part", Part, queue=NOTES)
def part(payload: Part) -> int:
    while payload.waits_for and not Path(payload.waits_for).exists():
        time.sleep(0.05)
    if payload.number == 2 and not Path("mended").exists():
        raise PermanentError("broken")
    return payload.number


@app.task(name="shop.body", queue="notes")
def body(results):
    logging.getLogger("shop").info("the body has %s", results)


@app.task(name="shop.errback", queue="notes")
def errback(*args, **kwargs):
    logging.getLogger("shop").info("the errback runs")


def send(*parts):
    chord([part.si(number=number, waits_for=wait) for number, wait in parts])(body.s().on_error(errback.s()))
"""


def failed_member(shop: Project, worker: Worker, *parts: tuple[int, str]) -> tuple[str, str]:
    """Send a chord whose second member fails; return its open dead letter and its run."""
    sent = shop.runs(f"import shop\nshop.send(*{parts!r})")
    assert sent.code == 0, sent.err
    found = wait_for(lambda: shop("dlq", "ls", "--state", "open", "--json").json["items"], LIMIT, "dead", worker.tail)
    return found[0]["id"], found[0]["run_id"]


def test_a_redriven_member_lets_the_body_run_or_is_refused(make_project: MakeProject) -> None:
    shop = make_project("shop", CHORD)
    worker = shop.worker("-P", "threads", "-c", "4")
    letter, _ = failed_member(shop, worker, (1, ""), (2, ""), (3, "go"))
    (shop.folder / "mended").touch()
    redriven = shop("dlq", "redrive", letter, "--yes", "--reason", "mended")
    assert redriven.code == 0, redriven.err
    (shop.folder / "go").touch()
    wait_for(lambda: "the body has [1, 2, 3]" in worker.log.read_text(), LIMIT, "the body runs", worker.tail)
    assert "the errback runs" not in worker.log.read_text()

    (shop.folder / "mended").unlink()
    letter, run = failed_member(shop, worker, (1, ""), (2, ""))
    wait_for(lambda: "the errback runs" in worker.log.read_text(), LIMIT, "the chord is over", worker.tail)
    for words in (("dlq", "redrive", letter, "--yes", "--reason", "mended"), ("jobs", "retry", run)):
        refused = shop(*words)
        assert refused.code != 0
        assert "which is over: its body was given up" in refused.err + refused.out, words
    assert [one["id"] for one in shop("dlq", "ls", "--state", "open", "--json").json["items"]] == [letter]
