"""Which slots to fire now and which are missed: pure arithmetic on a schedule, the time and the policies."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from uuid import UUID, uuid5

from taskyard.beat.definitions import Misfire
from taskyard.beat.timing.slots import Timing, slots_between

ON_TIME = timedelta(seconds=1)  # a slot later than this is a misfire, for which the policy decides


@dataclass(frozen=True, slots=True)
class Horizon:
    """The current time and the range of slots around it to consider."""

    now: datetime
    ahead: timedelta  # slots due within this are enqueued early, with their due time
    grace: timedelta  # the policy `skip` still fires the newest missed slot within this


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the slots between the cursor and the horizon."""

    fires: tuple[datetime, ...]  # oldest first
    missed: int  # slots that will not be fired
    newest_missed: datetime | None
    is_exact: bool  # False: more than `missed` were missed
    cursor: datetime  # slots up to here are settled

    @property
    def is_empty(self) -> bool:
        """Whether no slot is due."""
        return not self.fires and not self.missed


def plan(series: Timing, shift: timedelta, policy: tuple[Misfire, int], cursor: datetime, horizon: Horizon) -> Plan:
    """
    Decide about the slots after the cursor that are due now or within the horizon.

    A slot at most one second late is fired whatever the policy. Later ones are misfires:

    - `skip`: none is made up for, except the newest one when no younger slot has come and it is within the grace;
    - `run_once`: the newest one stands for all, unless a slot that is on time comes anyway;
    - `run_all`: all are made up for, the newest first when there are more than the limit.
    """
    misfire, limit = policy
    on_time_at_most = math.ceil((horizon.ahead + ON_TIME) / ON_TIME) + 1  # slots are a second apart or more
    keep = limit + on_time_at_most + 1  # one more is the newest missed
    due = slots_between(series, cursor, horizon.now + horizon.ahead - shift, keep)
    if not due.count:
        return Plan((), 0, None, is_exact=True, cursor=cursor)
    on_time = tuple(slot for slot in due.newest if slot + shift >= horizon.now - ON_TIME)
    passed = due.newest[: len(due.newest) - len(on_time)]
    made_up = passed[len(passed) - _made_up(misfire, limit, passed, shift, horizon, has_next=bool(on_time)) :]
    left_out = passed[: len(passed) - len(made_up)]
    missed = due.count - len(on_time) - len(made_up)
    newest_missed = left_out[-1] if left_out else (passed or due.newest)[0] if missed else None
    return Plan((*made_up, *on_time), missed, newest_missed, due.is_exact, cursor=due.newest[-1])


def shift_of(schedule_id: UUID, jitter: timedelta) -> timedelta:
    """Return the schedule's fixed share of its jitter, in whole milliseconds."""
    share = int.from_bytes(sha256(schedule_id.bytes).digest()[:4]) / 2**32
    return timedelta(milliseconds=int(jitter / timedelta(milliseconds=1) * share))


@lru_cache(maxsize=4096)  # asked several times for each fire
def run_id_of(schedule_id: UUID, slot: datetime) -> UUID:
    """Return the run id of a slot, the same whoever enqueues it and however often."""
    return uuid5(schedule_id, slot.isoformat(timespec="microseconds"))


def _made_up(  # noqa: PLR0913 - the facts of one decision
    misfire: Misfire, limit: int, passed: tuple[datetime, ...], shift: timedelta, horizon: Horizon, *, has_next: bool
) -> int:
    """Return how many of the newest missed slots to fire after all."""
    if misfire == "run_all":
        return min(limit, len(passed))
    if has_next or not passed:
        return 0
    if misfire == "run_once":
        return 1
    return 1 if horizon.now - (passed[-1] + shift) <= horizon.grace else 0
