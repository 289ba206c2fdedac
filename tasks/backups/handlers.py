"""The work of the backup task: take the target's lease, verify its newest dump, record the result."""

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from pydantic import BaseModel

from tasks.backups.checks.verification_report import FinishedVerification, VerificationReport
from tasks.backups.dependencies import BackupBooks, VerifyDependencies
from tasks.backups.errors import BackupConfigError, InfrastructureError
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import find_profile
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.store import LeaseRefusal
from tasks.backups.target_lease import renewing_lease
from tasks.backups.verification import Verification
from taskyard import Snooze
from taskyard.database.columns import utc_now

log = structlog.stdlib.get_logger(__name__)


class VerificationResult(BaseModel):
    """The result of one verification task."""

    target: str
    state: str  # passed, failed, or skipped: another run is verifying this target
    run_id: str | None = None  # of the history row
    reason: str | None = None


class EnqueuedVerifications(BaseModel):
    """The runs that one task without a target enqueued."""

    runs: dict[str, str]  # target -> run id of its task


def verify(payload: VerifyBackup, dependencies: VerifyDependencies, holder: str) -> VerificationResult:
    """
    Verify the newest backup of one target.

    Runs twice safely: one run per target at a time, each in a database of its own; a run that lost its worker is
    marked and its database dropped by the next one. A bad backup is a result; only a failure to verify it raises.

    Args:
        payload: Names the target.
        dependencies: Store, profiles, programs, servers.
        holder: Identifies the caller; the same for all executions of one task.

    Raises:
        Snooze: An execution of this same task that lost its worker still has the lease.
        BackupConfigError: A profile, a setting or the scratch server is wrong; trying again cannot help.
        InfrastructureError: The scratch server, a disk or the network failed.
    """
    profile = find_profile(dict(dependencies.profiles), payload.target or "")
    lease = dependencies.store.take_lease(profile.target, holder)
    if isinstance(lease, LeaseRefusal):
        return _lease_refused(profile.target, lease, holder)
    with renewing_lease(dependencies.store, lease, dependencies.store.lease_time.total_seconds()) as guard:
        run_id = uuid4()
        dependencies.store.start(run_id, profile.target, holder, dependencies.worker)
        work = Verification(dependencies, profile, run_id, guard, is_new_baseline=payload.is_new_baseline)
        try:
            work.run()
        except Exception as error:
            work.report.error = str(error) if isinstance(error, _KNOWN) else f"{type(error).__name__}: {error}"
            _finish(dependencies.store, run_id, work.report)
            raise
        finished = _finish(dependencies.store, run_id, work.report)
    return VerificationResult(
        target=profile.target, state=finished.state, run_id=str(run_id), reason=work.report.reason
    )


def enqueue_all(
    payload: VerifyBackup, profiles: Mapping[str, BackupProfile], enqueue: Callable[[VerifyBackup], str]
) -> EnqueuedVerifications:
    """
    Enqueue a run for each target.

    Runs twice safely: a target that is being verified is not verified a second time at once.
    """
    return EnqueuedVerifications(
        runs={name: enqueue(payload.model_copy(update={"target": name})) for name in sorted(profiles)}
    )


_KNOWN = (InfrastructureError, BackupConfigError)


def _lease_refused(target: str, held: LeaseRefusal, holder: str) -> VerificationResult:
    if held.holder == holder:  # this same task, before its worker died
        wait = max(held.until - utc_now(), timedelta(0)) + timedelta(seconds=random.uniform(0.1, 1))  # noqa: S311 - spreads load
        raise Snooze(wait, f"the lease of the lost worker on {target} ends at {held.until:%H:%M:%S} UTC")
    log.info("backup.skipped", target=target, held_by=held.holder)
    return VerificationResult(target=target, state="skipped", reason=f"being verified by {held.holder}")


def _finish(store: BackupBooks, run_id: UUID, report: VerificationReport) -> FinishedVerification:
    finished = store.finish(run_id, report)
    log.info(
        "backup.verified",
        target=finished.target,
        run_id=finished.run_id,
        state=finished.state,
        reason=report.reason,
        dump=report.dump,
        checks=len(report.checks),
        failed=len(report.failures),
    )
    return finished
