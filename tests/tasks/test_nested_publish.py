"""A publish in the middle of another one: it is sent, or refused with a clear error; nothing waits for itself."""

import pytest

from tests.identity.conftest import MakeProject, make_project
from tests.servers import Server

__all__ = ["make_project"]

pytestmark = pytest.mark.timeout(120)
HANDLER = """
import signal
import shop

seen = []

def handler(*_):
    try:
        shop.note.delay(text="of the handler")
    except Exception as error:
        seen.append(f"{type(error).__name__}: {error}")

signal.signal(signal.SIGUSR1, handler)
"""
IN_THE_POOL = """
shop.note.delay(text="before")
for pool in (shop.app.producer_pool, shop.app.pool):  # their locks are held where `_get` runs
    resource, taken = pool._resource, pool._resource._get

    def interrupted(resource=resource, taken=taken):
        resource._get = taken
        signal.raise_signal(signal.SIGUSR1)
        return taken()

    resource._get = interrupted
    shop.note.delay(text="interrupted")
assert seen == [], seen
"""
WHILE_THE_APP_IS_MADE = """
from celery._state import connect_on_app_finalize

connect_on_app_finalize(lambda app: signal.raise_signal(signal.SIGUSR1))
shop.note.delay(text="interrupted")
assert len(seen) == 1 and seen[0].startswith("NotReadyError: shop.note cannot be sent yet"), seen
"""


def waiting(server: Server) -> int:
    with server.client() as client:
        return int(client.zcard("taskyard:waiting:notes"))


def test_a_signal_handler_publishes_in_the_middle_of_a_publish(make_project: MakeProject, valkey: Server) -> None:
    ended = make_project("shop").runs(HANDLER + IN_THE_POOL)
    assert ended.code == 0, ended.err
    assert waiting(valkey) == 5  # one before, two that were interrupted, and one of the handler in each


def test_a_signal_handler_that_comes_too_early_gets_a_clear_error(make_project: MakeProject, valkey: Server) -> None:
    ended = make_project("shop").runs(HANDLER + WHILE_THE_APP_IS_MADE)
    assert ended.code == 0, ended.err
    assert waiting(valkey) == 1


def test_a_module_publishes_while_it_is_imported(make_project: MakeProject, valkey: Server) -> None:
    shop = make_project("shop", "\n\nnote.delay(text='at import')\n")
    before = waiting(valkey)
    sends = "threading.Thread(target=shop.note.delay, kwargs={'text': 'x'})"
    ended = shop.runs(f"import shop, threading\nthread = {sends}\nthread.start()\nthread.join()")
    assert ended.code == 0, ended.err
    assert waiting(valkey) == before + 2
