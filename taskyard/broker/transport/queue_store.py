"""Size and purge the queues of one key prefix."""

from collections.abc import Callable

import redis

from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.scripts.runner import Keyspace, run_script

PURGE_AT_ONCE = 1000  # messages per script call
WAITING_SETS = ("waiting", "grouped")  # the sorted sets that together hold the waiting messages


class QueueStore:
    """The queues as kombu sees them: what a worker has taken belongs to none."""

    def __init__(self, client: Callable[[], redis.Redis], space: Keyspace) -> None:
        """`client` returns the connection's current client."""
        self._client = client
        self._space = space

    def size(self, queue: str) -> int:
        """Count the messages that wait or are delayed; those under a lease are not counted."""
        pipeline = self._client().pipeline(transaction=False)
        for kind in (*WAITING_SETS, "delayed"):
            pipeline.zcard(f"{self._space.prefix}{kind}:{queue}")
        return sum(pipeline.execute())

    def purge(self, queue: str) -> int:
        """Remove what waits or is delayed; returns how many."""
        removed = 0
        reason = detail(by="purge", reason="queue purged")
        while True:
            arguments = (queue, reason, PURGE_AT_ONCE, *WAITING_SETS, "delayed")
            count = int(run_script(self._client(), self._space, "drain", *arguments))
            removed += count
            if count < PURGE_AT_ONCE:
                return removed
