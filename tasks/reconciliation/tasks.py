"""The reconciliation tasks: one line of work each, and the dependencies of their handlers."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4, uuid5

from celery import chord, current_task

from config.queues import RECONCILIATION
from config.settings import ReconciliationSettings
from tasks.markets import positions
from tasks.reconciliation import handlers
from tasks.reconciliation.chain.readers import open_chain
from tasks.reconciliation.clients import ChainReader
from tasks.reconciliation.payloads import CheckMarket, FinishReport, Reconcile, SweepReconciliations
from tasks.reconciliation.recovery import LostMarket, RecoveryStore
from tasks.reconciliation.store import ReportStore
from taskyard import CallOptions, Exponential, Policy, before_work, emit, enqueue_many, task
from taskyard.database.engine import open_session
from taskyard.settings import MAINTENANCE, current_settings

REPORTS = UUID("a7e2c0f4-0c55-4d8e-9c80-6f4b5a2d7e31")  # namespace of the ids that are made from run ids
# A node that does not answer is a line of the report; what is tried again is the database or the broker.
RECONCILIATION_POLICY = Policy(max_attempts=5, backoff=Exponential(base=timedelta(seconds=2)))
SWEEP = Policy(max_attempts=1)  # the next one comes on schedule


@task("reconciliation.reconcile", Reconcile, queue=RECONCILIATION, policy=RECONCILIATION_POLICY)
def reconcile(payload: Reconcile) -> handlers.ReportSummary:
    """Compare one market or all; see :func:`tasks.reconciliation.handlers.reconcile`."""
    return handlers.reconcile(payload, _report_id(), open_store(), chain_side(), send_chord)


@task("reconciliation.check_market", CheckMarket, queue=RECONCILIATION, policy=RECONCILIATION_POLICY)
def check_market(payload: CheckMarket) -> handlers.MarketCheckResult:
    """Compare one market of a global run; see :func:`tasks.reconciliation.handlers.check_market`."""
    return handlers.check_market(payload, open_store(), chain_side())


@task("reconciliation.finish", FinishReport, queue=RECONCILIATION, policy=RECONCILIATION_POLICY)
def finish(payload: FinishReport) -> handlers.ReportSummary:
    """Complete a global run; see :func:`tasks.reconciliation.handlers.finish`."""
    return handlers.finish(payload, open_store())


@task("reconciliation.sweep", SweepReconciliations, queue=MAINTENANCE, policy=SWEEP)
def sweep(_payload: SweepReconciliations) -> handlers.SweepResult:
    """Look after global runs; see :func:`tasks.reconciliation.handlers.sweep`."""
    return handlers.sweep(
        open_store(), RecoveryStore(open_session, current_settings(ReconciliationSettings)), send_again
    )


def send_chord(report_id: UUID, market_ids: Sequence[str]) -> None:
    """
    Hand a run to the broker: a chord of all its markets, and the report as its body.

    The chord is the fast way to the report, not the only one: what it loses with a worker or the result backend, the
    sweeper finds in SQL.
    """
    check: Any = check_market  # Celery's own signatures; the typed calls do not know them
    body: Any = finish
    header = [
        check.si(**CheckMarket(report_id=report_id, market_id=market_id).to_wire()).set(group_key=str(report_id))
        for market_id in market_ids
    ]
    chord(header)(body.si(**FinishReport(report_id=report_id).to_wire()))


def send_again(lost: Iterable[LostMarket]) -> None:
    """Hand markets to the broker again, outside of any chord."""

    def options(payload: CheckMarket) -> CallOptions:
        return {"dedup_key": f"recon:{payload.report_id}:{payload.market_id}", "group_key": str(payload.report_id)}

    payloads = [CheckMarket(report_id=row.report_id, market_id=row.market_id) for row in lost]
    enqueue_many(check_market, payloads, each=options)


def open_store() -> ReportStore:
    """Return the store on this process's database."""
    return ReportStore(
        open_session, current_settings(ReconciliationSettings), positions, emit, chain_side().normal_address
    )


@before_work(RECONCILIATION, ReconciliationSettings)
def check_settings(settings: ReconciliationSettings) -> None:
    """
    Make a reader of the chain, which connects with its first call only.

    Raises:
        SettingsError: CHAIN_RPC_URL or CHAIN_CONTRACT is missing or does not fit the provider.
    """
    open_chain(settings)


@lru_cache(maxsize=1)
def chain_side() -> ChainReader:
    """Return this process's reader of the chain; it connects with the first call, also after a fork."""
    return open_chain(current_settings(ReconciliationSettings))


def report_id_of(run_id: str) -> UUID:
    """Derive a report's id from its run's: every execution of one message means the same report."""
    return uuid5(REPORTS, run_id)


def _report_id() -> UUID:
    run_id = current_task.request.id  # the proxy of a task that is not running has none
    return report_id_of(run_id) if run_id else uuid4()
