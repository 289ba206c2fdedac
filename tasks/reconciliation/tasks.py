"""The reconciliation tasks: one line of work each, and the dependencies of their handlers."""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from uuid import UUID, uuid4, uuid5

from celery import current_task
from sqlmodel import Session

from config.queues import RECONCILIATION
from config.settings import ReconciliationSettings
from tasks.markets import positions
from tasks.reconciliation import handlers
from tasks.reconciliation.chain.readers import open_chain
from tasks.reconciliation.clients import ChainReader
from tasks.reconciliation.payloads import CheckMarket, FinishReport, Reconcile, SweepReconciliations
from tasks.reconciliation.store import ReportStore
from taskyard import Exponential, Flow, Policy, before_work, emit, task
from taskyard.database.engine import open_session
from taskyard.settings import MAINTENANCE, current_settings

REPORTS = UUID("a7e2c0f4-0c55-4d8e-9c80-6f4b5a2d7e31")  # namespace of the ids that are made from run ids
# A node that does not answer is a line of the report; what is tried again is the database or the broker.
RECONCILIATION_POLICY = Policy(max_attempts=5, backoff=Exponential(base=timedelta(seconds=2)))
MARKETS_AT_ONCE = 32  # of one run: other requests of the queue wait behind these at most
SWEEP = Policy(max_attempts=1)  # the next one comes on schedule


@task("reconciliation.reconcile", Reconcile, queue=RECONCILIATION, policy=RECONCILIATION_POLICY)
def reconcile(payload: Reconcile) -> handlers.ReportSummary:
    """Compare one market or all; see :func:`tasks.reconciliation.handlers.reconcile`."""
    return handlers.reconcile(payload, _report_id(), open_store(), chain_side(), start_run)


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
    """Remove old reports; see :func:`tasks.reconciliation.handlers.sweep`."""
    return handlers.sweep(open_store())


def start_run(session: Session, report_id: UUID, market_ids: Sequence[str]) -> None:
    """Start the flow of a run: all its markets, then the report, which comes whatever became of them."""
    deadline = current_settings(ReconciliationSettings).reconciliation_deadline
    payloads = [CheckMarket(report_id=report_id, market_id=market_id) for market_id in market_ids]
    flow = Flow("reconciliation.global", key=f"reconciliation:{report_id}")
    markets = flow.fan_out(
        "markets", check_market, payloads, at_once=MARKETS_AT_ONCE, if_failed="ignore", deadline=deadline
    )
    flow.step("report", finish, FinishReport(report_id=report_id), after=[markets.if_failed("ignore")])
    flow.start_in(session)


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
