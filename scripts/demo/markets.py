"""
Two acts for the demo: markets resolved with their webhooks received, and a reconciliation that finds planted drift.

The caller has servers, a migrated database and workers, started with the variables of :func:`chain_variables`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col

from scripts.standins.market_sample import OUTCOMES, Sample, add_sample
from scripts.standins.receiver import Receiver
from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from tasks.markets import queries as markets
from tasks.markets.models import Prediction, User
from tasks.markets.tasks import confirm, resolve
from tasks.reconciliation import queries as reports
from tasks.reconciliation.tasks import reconcile, report_id_of
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery import endpoints

LIMIT = 60.0  # seconds for each act
PAUSE = 0.05  # seconds between two looks at SQL, which tells nobody when it changes
USERS = 12
PLANTED = 1_000  # smallest units that the chain lacks in the first market

type Say = Callable[[str], None]


class ActError(RuntimeError):
    """A number is not what it must be, or did not come in time."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the first act showed."""

    markets: int
    pool: int  # smallest units, of all markets
    paid_and_fee: int
    messages: int  # `market.resolved`, received


def chain_variables(node: StandinNode) -> dict[str, str]:
    """Return the variables that let workers read this node; set them before the workers start."""
    return {"CHAIN_PROVIDER": "soroban", "CHAIN_RPC_URL": node.url, "CHAIN_CONTRACT": CONTRACT}


def load_sample() -> Sample:
    """Add the sample to this process's database."""
    with open_session() as session, session.begin():
        return add_sample(session, [account(number) for number in range(1, USERS + 1)])


def show_resolution(sample: Sample, receiver: Receiver, say: Say) -> Resolution:
    """
    Confirm the sample's predictions and resolve its markets, each twice; the subscriber hears of each once.

    Raises:
        ActError: A market is not resolved in time, or the payouts and fees are not the pools.
    """
    with open_session() as session, session.begin():
        endpoints.register(session, current_settings(), receiver.url, ["market.resolved"], endpoints.EndpointOptions())
    confirm.delay()
    expected = sample.predictions - sample.unseen
    wait_for(lambda: _confirmed() == expected, f"{expected} predictions are confirmed")
    say(f"{expected} of {sample.predictions} predictions are confirmed: their transactions are on the chain")
    for number, market_id in enumerate(sample.market_ids):
        for _ in range(2):  # the indexer may say it twice
            winner = OUTCOMES[number % len(OUTCOMES)]
            resolve.delay(market_id=market_id, winning_outcome=winner, ledger=100 + number, timestamp=utc_now())
    try:
        received = receiver.wait_for(len(sample.market_ids), timeout=LIMIT)
    except TimeoutError as error:
        raise ActError(f"not every market.resolved arrived: {error}") from error
    done = _account_for(sample, len(received))
    say(f"{done.markets} markets are resolved; payouts and fees are their pools to the unit: {done.paid_and_fee}")
    say(f"{done.messages} market.resolved arrived, one for each market")
    return done


def show_reconciliation(sample: Sample, node: StandinNode, say: Say) -> reports.ReportView:
    """
    Put the sample on the chain with one difference, compare all markets, and find exactly that difference.

    Raises:
        ActError: The report does not come in time, or says something else.
    """
    with open_session() as session:
        for market_id in sample.market_ids:
            node.put(market_id, _on_chain(session, market_id, PLANTED if market_id == sample.market_ids[0] else 0))
    say(f"the chain lacks {PLANTED} units of one position in {sample.market_ids[0]}")
    report_id = report_id_of(reconcile.delay(type="global", correlation_id="demo").id)
    wait_for(lambda: _is_complete(report_id), "the report is complete")
    with open_session() as session:
        report = reports.find_report(session, report_id)
        drifts = reports.list_drifts(session, report_id).rows
    if (report.status, report.drift, len(drifts)) != ("ok", str(PLANTED), 1):
        raise ActError(f"the report says {report.status}, drift {report.drift} in {len(drifts)} positions")
    say(f"{report.keys} positions of {report.markets} markets compared: drift {report.drift}, {report.severity}")
    say(f"{drifts[0].market_id}: {drifts[0].address[:8]}... on {drifts[0].outcome!r} differs by {drifts[0].difference}")
    return report


def wait_for(condition: Callable[[], bool], description: str) -> None:
    """
    Wait until a condition holds.

    Raises:
        ActError: It did not within a minute.
    """
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise ActError(f"not within {LIMIT:g} s: {description}")
        time.sleep(PAUSE)


def _account_for(sample: Sample, messages: int) -> Resolution:
    pool = paid_and_fee = 0
    with open_session() as session:
        for market_id in sample.market_ids:
            pool += int(markets.show_market(session, market_id).pool or 0)
            payouts = session.scalars(select(col(Prediction.payout)).where(col(Prediction.market_id) == market_id))
            paid_and_fee += sum(payout or 0 for payout in payouts)
            paid_and_fee += int(markets.show_market(session, market_id).fee or 0)
    if pool != paid_and_fee or messages != len(sample.market_ids):
        raise ActError(f"pools of {pool}, payouts and fees of {paid_and_fee}, {messages} messages")
    return Resolution(len(sample.market_ids), pool, paid_and_fee, messages)


def _on_chain(session: Session, market_id: str, lacking: int) -> list[tuple[str, str, int]]:
    """Return a market's confirmed positions as the chain holds them, but for what the first one lacks."""
    rows = session.execute(
        select(col(User.address), col(Prediction.outcome), col(Prediction.amount))
        .join(User, col(User.id) == col(Prediction.user_id))
        .where(col(Prediction.market_id) == market_id, col(Prediction.state) == "confirmed")
        .order_by(col(Prediction.id))
    ).all()
    bets = [(str(row[0]), str(row[1]), int(row[2])) for row in rows]
    return [
        (address, outcome, amount - lacking * (number == 0)) for number, (address, outcome, amount) in enumerate(bets)
    ]


def _confirmed() -> int:
    with open_session() as session:
        return len(session.scalars(select(col(Prediction.id)).where(col(Prediction.state) == "confirmed")).all())


def _is_complete(report_id: UUID) -> bool:
    with open_session() as session:
        try:
            return reports.find_report(session, report_id).state == "completed"
        except reports.UnknownReportError:
            return False
