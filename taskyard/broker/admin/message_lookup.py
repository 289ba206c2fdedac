"""Find which runs still have a message in the broker that is not dead."""

from collections.abc import Iterable
from typing import Any

from redis import Redis

DIED_AT = "ft"  # field of a message that was buried; see scripts/prelude.lua


def find_live_runs(client: Redis, prefix: str, run_ids: Iterable[str]) -> set[str]:
    """
    Return the runs whose message is waiting, delayed or active; all others are done, dead or were never sent.

    Raises:
        RedisError: The broker does not answer.
    """
    wanted = list(run_ids)
    pipeline: Any = client.pipeline(transaction=False)
    for run_id in wanted:
        pipeline.hmget(f"{prefix}message:{run_id}", "q", DIED_AT)
    answers = pipeline.execute() if wanted else []
    return {run_id for run_id, (queue, died_at) in zip(wanted, answers, strict=True) if queue and not died_at}
