"""The task about flows, and where the platform's tasks meet them: how a step is run, and what a dead letter means."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import timedelta

from taskyard.broker.admin.message_lookup import find_live_runs
from taskyard.broker.server.client import shared_client
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.flows.payloads import CHECK_DEADLINE, CheckDeadline, SweepFlows
from taskyard.flows.retention import prune_flows
from taskyard.flows.running.step_execution import run_step
from taskyard.flows.running.sweeping import Sweeper
from taskyard.flows.steering import step_failed_outside
from taskyard.flows.step_ref import FLOW_HEADER, StepRef
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.dead_letters.task import BuryRun, when_buried
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import Snooze
from taskyard.tasks.policy import Policy
from taskyard.tasks.settle import supervise

SWEEP = Policy(max_attempts=1)  # the next one comes on schedule

supervise(FLOW_HEADER, run_step)


@when_buried
def tell_flow(letter: BuryRun) -> None:
    """Let the flow know of a run that failed where no handler could say so; of others it knows already."""
    ref = StepRef.read((letter.headers or {}).get(FLOW_HEADER))
    if ref is not None:
        step_failed_outside(ref, f"{letter.reason}: {letter.error}: {letter.message}")


@task("flows.sweep", SweepFlows, queue=MAINTENANCE, policy=SWEEP)
def sweep(_payload: SweepFlows) -> dict[str, int]:
    """Send lost steps again, end what is too late, delete what is old."""
    swept = asdict(Sweeper(open_session, _held_runs).sweep())
    days = current_settings().audit_log_retention_days
    pruned = prune_flows(open_session, utc_now() - timedelta(days=days)) if days else 0
    return {**swept, "pruned": pruned}


@task(CHECK_DEADLINE, CheckDeadline, queue=MAINTENANCE, policy=SWEEP)
def check_deadline(payload: CheckDeadline) -> None:
    """End a flow or a step that is too late."""
    left = Sweeper(open_session, _held_runs).check_deadline(payload.flow_id, payload.seq)
    if left > timedelta(0):  # clocks differ
        raise Snooze(left, "not due yet")


def _held_runs(run_ids: Collection[str]) -> Collection[str]:
    """Ask the broker; stock kombu cannot be asked, and there a repeated message is the lesser evil."""
    settings = current_settings()
    if settings.taskyard_transport == "redis":
        return ()
    return find_live_runs(shared_client(settings.redis_url), settings.taskyard_key_prefix, run_ids)
