"""A worker is seen at its queues as soon as it takes from them, not when its leases are renewed the next time."""

from datetime import timedelta
from pathlib import Path

from tests.broker.harness import BrokerHarness
from tests.servers import Server
from tests.waiting import wait_for

QUEUES = ("celery", "dead-letter", "third", "fourth")


def test_a_worker_is_seen_at_all_its_queues_at_once(valkey: Server, recorder: Server, tmp_path: Path) -> None:
    """Its leases are renewed every twenty minutes here."""
    with BrokerHarness(valkey, recorder, tmp_path, worker_queue_stalled_interval=timedelta(hours=1)) as harness:
        harness.worker(queues=",".join(QUEUES))
        wait_for(
            lambda: [harness.control.counts(queue).consumers for queue in QUEUES] == [1] * 4, 30, "it is seen at all"
        )
