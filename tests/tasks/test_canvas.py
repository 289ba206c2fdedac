"""Chains of typed tasks: what cannot run is refused where the chain is sent, and nothing of it is."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group

from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import InvalidPayloadError
from taskyard.tasks.payloads import Payload
from taskyard.tasks.sending import find_task
from tests.app_broker import use_broker
from tests.servers import Server


class Parcel(Payload):
    """What to send."""

    label: str


@task("tests.parcel", Parcel, queue=MAINTENANCE)
def parcel(_payload: Parcel) -> None:
    """Do nothing."""


def step(**fields: Any) -> Any:
    return find_task("tests.parcel").si(**fields)


def good() -> Any:
    return step(label="good")


CANVASES: dict[str, Callable[[], Any]] = {
    "a field of a wrong type": lambda: chain(good(), good(), step(label=7)),
    "an unknown field": lambda: chain(good(), step(label="x", colour="red")),
    "a result as an argument": lambda: chain(good(), find_task("tests.parcel").s(label="x")),
    "a group in a chain": lambda: chain(good(), group(good(), step(label=7))),
    "a chord in a chain": lambda: chain(good(), group(good(), good()), step(label=None), good()),
    "the body of a chord": lambda: chord([good(), good()], step()),
    "a link": lambda: good().on_error(good()).set(link=[step(label=7)]),
    "an errback": lambda: chain(good(), good()).on_error(step(label=7)),
}


@pytest.mark.parametrize("what", CANVASES)
def test_a_canvas_with_an_invalid_step_is_refused_whole(valkey: Server, what: str) -> None:
    use_broker(valkey.url)
    with pytest.raises(InvalidPayloadError, match=r"tests\.parcel: "):
        CANVASES[what]().apply_async()
    with valkey.client() as client:
        assert not client.keys("taskyard:message:*"), "nothing was sent"


def test_a_valid_canvas_is_sent(valkey: Server) -> None:
    use_broker(valkey.url)
    chain(good(), group(good(), good()), good()).apply_async()
    chord([good(), good()], good()).apply_async()
    with valkey.client() as client:
        assert len(client.keys("taskyard:message:*")) == 3
