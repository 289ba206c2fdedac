"""With a hash tag in the prefix all keys are in one slot: it works on a node of a cluster that owns this slot only."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import kombu
import pytest

from taskyard.settings.group import SettingsError
from taskyard.settings.loading import load_settings
from tests.broker.harness import BrokerHarness
from tests.fixtures.servers import KINDS
from tests.servers import Kind, Server, make_server
from tests.waiting import wait_for

PREFIX = "{taskyard}:"


@pytest.fixture(params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A cluster's node that refuses each key of any other slot."""
    kind: Kind = request.param
    options = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]
    with make_server(kind, tmp_path / "node", options=options) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", client.execute_command("CLUSTER", "KEYSLOT", PREFIX))
            wait_for(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")), 20, "it is up")
        yield server


def test_everything_works_on_a_node_that_owns_one_slot(node: Server, recorder: Server, tmp_path: Path) -> None:
    lease = timedelta(seconds=1)
    with BrokerHarness(
        node, recorder, tmp_path, taskyard_key_prefix=PREFIX, worker_queue_stalled_interval=lease
    ) as harness:
        harness.control.set_concurrency("celery", 3)
        harness.worker("threads", 4, minimal=False)
        ended = [harness.send("record", headers={"taskyard": {"group_key": str(number % 2)}}) for number in range(10)]
        dead, again = harness.send("bury"), harness.send("redeliver", 0.05, 2)
        asked = harness.app.send_task("nothing", (7,), queue="celery", ignore_result=False)
        cancelled = harness.send("record", countdown=3600)
        harness.app.control.revoke(cancelled)
        assert asked.get(timeout=60) == 7
        harness.wait_ended(ended)
        wait_for(lambda: harness.states(cancelled)[-1:] == ["cancelled"], 30, "it is cancelled")
        wait_for(lambda: harness.states(again)[-1:] == ["succeeded"], 30, "it came back twice")
        (letter,) = wait_for(harness.dead_letters, 30, "the letter was stored")
        assert letter.startswith(dead)
        assert harness.app.control.inspect(timeout=20, limit=1).ping() == {"worker@test": {"ok": "pong"}}
        harness.send("record", queue="elsewhere")
        with harness.app.connection_for_write() as connection:
            queue = kombu.Queue("elsewhere", kombu.Exchange("elsewhere"), "elsewhere")(connection.default_channel)
            queue.declare()
            queue.delete()
        assert harness.control.counts("elsewhere").waiting == 0
        assert {name for name in harness.broker.scan_iter("*") if not name.startswith(PREFIX)} == set()


@pytest.mark.parametrize("prefix", ["taskyard:", "{taskyard}:", "eu:{shop-1}.tasks:", ""])
def test_a_prefix_may_hold_one_hash_tag(prefix: str) -> None:
    assert load_settings({"TASKYARD_KEY_PREFIX": prefix}).taskyard_key_prefix == (prefix or "taskyard:")


@pytest.mark.parametrize("prefix", ["{}:", "{a}{b}:", "{a", "a}:", "{a{b}}:", "a b:", "{" + "a" * 64 + "}"])
def test_any_other_brace_is_refused(prefix: str) -> None:
    """An empty tag is none, and of two only the first counts: keys would be in other slots than somebody meant."""
    with pytest.raises(SettingsError, match="TASKYARD_KEY_PREFIX"):
        load_settings({"TASKYARD_KEY_PREFIX": prefix})
