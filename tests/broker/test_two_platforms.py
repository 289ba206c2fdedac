"""Two platforms on one server, told apart by their key prefixes: neither hears of the other."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.broker.harness import BrokerHarness
from tests.servers import Server
from tests.waiting import stays_true, wait_for

LIMIT = 60  # seconds
FULL: dict[str, Any] = {"minimal": False}  # with gossip, mingle and heartbeats
type Pair = tuple[BrokerHarness, BrokerHarness]


@pytest.fixture(params=["shop:", "{shop}:"], ids=["prefix", "hash tag"])
def pair(request: Any, valkey: Server, recorder: Server, tmp_path: Path) -> Iterator[Pair]:
    """Two platforms; the second one's prefix begins as the first one's does."""
    with ExitStack() as stack:
        prefixes = (request.param, f"{request.param}b:")
        made = [
            BrokerHarness(valkey, recorder, tmp_path / str(number), taskyard_key_prefix=prefix)
            for number, prefix in enumerate(prefixes)
        ]
        yield stack.enter_context(made[0]), stack.enter_context(made[1])


def test_a_shutdown_by_remote_control_ends_only_workers_of_its_own_platform(pair: Pair) -> None:
    one, other = pair
    ours, theirs = one.worker(name="ours", **FULL), other.worker(name="theirs", **FULL)
    wait_for(lambda: one.app.control.ping(timeout=1), LIMIT, "ours answers")
    assert {name for answer in one.app.control.ping(timeout=2) or [] for name in answer} == {"ours@test"}
    one.app.control.cancel_consumer("celery")
    other.wait_ended([other.send("record")])
    one.app.control.shutdown()
    assert ours.wait_ended(LIMIT) == 0
    stays_true(lambda: theirs.is_running, 1, "the other platform's worker lives")
    other.wait_ended([other.send("record")])


def test_events_reach_only_those_who_watch_their_own_platform(pair: Pair) -> None:
    one, other = pair
    seen: list[str] = []

    def look() -> bool:
        """Nobody hears what is sent before he has subscribed: both send until he hears."""
        other.app.events.Dispatcher(others, hostname="theirs").send("test-event")
        one.app.events.Dispatcher(connection, hostname="ours").send("test-event")
        with suppress(TimeoutError):
            listening.drain_events(timeout=1)
        return len(seen) >= 3

    handlers = {"*": lambda event: seen.append(event["hostname"])}
    with (
        one.app.connection() as connection,
        other.app.connection() as others,
        one.app.events.Receiver(connection, handlers=handlers).consumer_context() as (listening, _, _),
    ):
        wait_for(look, LIMIT, "events came")
    assert set(seen) == {"ours"}


def test_all_that_a_platform_writes_and_says_carries_its_prefix(pair: Pair) -> None:
    one, _ = pair
    begins = (one.prefix, f"/{one.prefix}".replace("{", "%7B").replace("}", "%7D"))
    with (
        redis.Redis(port=one.server.port, decode_responses=True) as watching,
        watching.pubsub(ignore_subscribe_messages=True) as heard,
    ):
        heard.psubscribe("*")
        one.worker(name="ours", IGNORE_RESULTS="0", **FULL)
        one.send("nothing", ignore_result=False)
        one.send("nothing", countdown=3600)
        one.app.control.broadcast("enable_events")
        names: set[str] = set()

        def has_heard_all() -> bool:
            message = heard.get_message(timeout=0.5)
            names.add(message["channel"] if message else "")
            return all(any(word in name for name in names) for word in ("pidbox", "celeryev", "celery-task-meta"))

        wait_for(has_heard_all, LIMIT, "control, events and a result", lambda: str(names))
        names |= set(watching.scan_iter("*", count=1000))
        assert [name for name in names if name and not name.startswith(begins)] == []
