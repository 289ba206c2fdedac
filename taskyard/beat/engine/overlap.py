"""Whether the previous run of a schedule is unfinished: the broker decides, where it can look a run up."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from taskyard.beat.engine.publisher import Publisher
from taskyard.beat.engine.store import BeatStore


def unfinished_runs(store: BeatStore, publisher: Publisher, run_ids: Sequence[UUID], now: datetime) -> set[UUID]:
    """
    Return which of these runs are unfinished: still to be published, or with a message in the broker.

    With the stock transport, which cannot look messages up, the history decides instead.

    Raises:
        RedisError: The broker does not answer.
    """
    if not run_ids:
        return set()
    fires = store.fire_states(run_ids)
    pending = {run_id for run_id, state in fires.items() if state == "pending"}
    published = {run_id for run_id, state in fires.items() if state == "published"}
    live = publisher.live_runs(published)
    return pending | (store.unfinished_in_history(published, now) if live is None else live)
