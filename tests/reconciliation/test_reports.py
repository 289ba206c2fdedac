"""Reports: what they say of equal and different sides, what they refuse to say, and who asked."""

import json
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import Session

from audit.models import AdminAction
from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from tasks.reconciliation import handlers
from tasks.reconciliation.handlers import MAX_BLOCKS_BEHIND
from tasks.reconciliation.models import MarketLine, PositionRow, Report
from tasks.reconciliation.payloads import Reconcile
from tasks.reconciliation.tasks import reconcile
from taskyard.tasks.errors import InvalidPayloadError, PermanentError
from tests.databases import Database
from tests.markets.market_rows import MarketRows
from tests.reconciliation.reconciler import ADMIN, Reconciler

ALICE, BOB, CAROL = account(1), account(2), account(3)


def test_equal_different_and_one_sided_positions_are_told_apart(reconciler: Reconciler, node: StandinNode) -> None:
    reconciler.market_rows.market()
    reconciler.market_rows.predict(
        ("yes", 2**64 + 5), ("yes", 2**64), ("no", 3), address=ALICE
    )  # two bets of one user on yes
    reconciler.market_rows.predict(("yes", 10), address=BOB)
    reconciler.market_rows.predict(
        ("yes", 99), address=BOB, state="pending"
    )  # not confirmed: not in the database's side
    node.put("m", [(ALICE, "yes", 2**65 + 5), (ALICE, "no", 4), (CAROL, "no", 6)])

    done = reconciler.market()

    rows = {(row.address, row.outcome): row for row in reconciler.rows(done.report_id)}
    assert {key: row.kind for key, row in rows.items()} == {
        (ALICE, "yes"): "match",
        (ALICE, "no"): "mismatch",
        (BOB, "yes"): "missing_on_chain",
        (CAROL, "no"): "missing_in_db",
    }
    assert (rows[ALICE, "yes"].db_amount, rows[ALICE, "no"].difference) == (2**65 + 5, -1)
    assert (rows[BOB, "yes"].chain_amount, rows[CAROL, "no"].db_amount) == (None, 0)
    report = reconciler.report(done.report_id)
    assert (report.state, report.status, report.block, report.source) == ("completed", "ok", node.ledger, "soroban")
    assert (report.keys, report.matches, report.mismatches) == (4, 1, 1)
    assert (report.missing_on_chain, report.missing_in_db, report.drift) == (1, 1, 1 + 10 + 6)
    assert report.db_total - report.chain_total == 10 - 1 - 6


def test_odd_outcomes_are_compared_letter_by_letter(reconciler: Reconciler, node: StandinNode) -> None:
    odd = ["a::b", "", " yes", "YES", "yes", "ja 🎲", "x' OR 1=1 --", "%_\\"]
    reconciler.market_rows.market()
    reconciler.market_rows.predict(*[(outcome, 1) for outcome in odd], address=ALICE)
    node.put("m", [(ALICE, outcome, 1) for outcome in odd])

    done = reconciler.market()

    assert (reconciler.report(done.report_id).matches, done.severity) == (len(odd), "none")


def test_a_prediction_of_a_later_ledger_is_not_drift(reconciler: Reconciler, node: StandinNode) -> None:
    """The chain was read at one ledger; what was confirmed after it belongs to the next report."""
    reconciler.market_rows.market()
    node.put("m", [(ALICE, "yes", 1)])
    reconciler.market_rows.predict(("yes", 1), address=ALICE, ledger=node.ledger)
    reconciler.market_rows.predict(("yes", 5), address=ALICE, ledger=node.ledger + 1)

    done = reconciler.market()

    assert done.severity == "none"
    assert (reconciler.report(done.report_id).left_out, reconciler.lines(done.report_id)["m"].left_out) == (1, 1)


def test_a_chain_that_cannot_be_read_makes_a_partial_report_without_drift(
    reconciler: Reconciler, node: StandinNode
) -> None:
    """Otherwise an outage of the node would look like the loss of everything."""
    reconciler.market_rows.predict(("yes", 1), market_id=reconciler.market_rows.market())
    node.stop()

    done = reconciler.market()

    assert (done.state, done.status, done.severity, done.drift) == ("completed", "partial", "none", "0")
    assert reconciler.rows(done.report_id) == []
    line = reconciler.lines(done.report_id)["m"]
    assert (line.status, line.missing_on_chain, line.chain_total) == ("partial", 0, None)
    assert line.error
    assert reconciler.market_rows.events("reconciliation.drift") == []
    assert len(reconciler.market_rows.events("reconciliation.incomplete")) == 1, "somebody is told"


def test_without_a_configured_chain_every_report_is_partial(database: Database) -> None:
    reconciler = Reconciler(MarketRows(database))
    reconciler.market_rows.market()

    done = reconciler.market()

    assert done.status == "partial"
    assert "CHAIN_PROVIDER" in (reconciler.lines(done.report_id)["m"].error or "")


def test_who_asked_is_written_with_the_report(reconciler: Reconciler, node: StandinNode) -> None:
    reconciler.market_rows.market()
    node.put("m", [])

    reconciler.market()

    (action,) = reconciler.actions()
    assert (action.action, action.target) == ("admin.reconciliation.market.inspect", "m")
    assert (action.actor, action.ip, action.correlation_id) == tuple(ADMIN.values())


def test_report_rows_and_admin_action_are_one_transaction(reconciler: Reconciler, node: StandinNode) -> None:
    """An alert that cannot be written takes the whole report with it, and the task is tried again."""
    reconciler.market_rows.predict(("yes", 1), market_id=reconciler.market_rows.market())
    node.put("m", [])

    def refuse(session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
        raise ConnectionError(f"the outbox is away: {session}, {event_type}, {data}, {idempotency_key}")

    reconciler.store = reconciler.store_with(refuse)  # the last step of the transaction
    with pytest.raises(ConnectionError):
        reconciler.market()

    assert [reconciler.market_rows.count(model) for model in (Report, MarketLine, PositionRow, AdminAction)] == [
        0,
        0,
        0,
        0,
    ]


def test_drift_above_the_tolerance_is_announced_once(reconciler: Reconciler, node: StandinNode) -> None:
    reconciler.market_rows.subscriber("reconciliation.drift")
    reconciler.market_rows.market()
    reconciler.market_rows.predict(("yes", 1000), address=ALICE)
    node.put("m", [(ALICE, "yes", 700)])
    report_id = uuid4()

    done = [reconciler.market(report_id=report_id) for _ in range(2)]

    assert done[0] == done[1]
    assert (done[0].severity, done[0].drift) == ("critical", "300")
    (delivery,) = reconciler.market_rows.deliveries("reconciliation.drift")
    data = json.loads(reconciler.market_rows.body(delivery))["data"]
    assert (data["report_id"], data["drift"], data["drift_bp"]) == (str(report_id), "300", 3000)
    assert [market["market_id"] for market in data["markets"]] == ["m"]
    assert reconciler.report(report_id).event_id == delivery.event_id


def test_drift_within_the_tolerance_is_reported_but_not_announced(database: Database, node: StandinNode) -> None:
    chain = {"chain_provider": "soroban", "chain_rpc_url": node.url, "chain_contract": CONTRACT}
    reconciler = Reconciler(MarketRows(database), **chain, reconciliation_tolerance=5)
    reconciler.market_rows.market()
    reconciler.market_rows.predict(("yes", 10), address=ALICE)
    node.put("m", [(ALICE, "yes", 5)])

    done = reconciler.market()

    assert (done.severity, done.drift) == ("tolerated", "5")
    assert reconciler.market_rows.events("reconciliation.drift") == []


def test_an_unknown_market_is_a_permanent_error(reconciler: Reconciler) -> None:
    with pytest.raises(handlers.MarketNotFoundError) as raised:
        reconciler.market("nowhere")

    assert isinstance(raised.value, PermanentError)
    assert (reconciler.market_rows.count(Report), reconciler.market_rows.count(AdminAction)) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "type"),
        ({"type": "weekly"}, "unknown reconciliation type 'weekly'"),
        ({"type": "Global"}, "unknown reconciliation type"),
        ({"type": None}, "type"),
        ({"type": "market"}, "market_id, admin_address, ip, correlation_id"),
        ({"type": "market", **ADMIN, "market_id": "  "}, "needs market_id"),
        ({"type": "market", **ADMIN, "market_id": "m" * 256}, "market_id"),
        ({"type": "market", **ADMIN, "market_id": "m", "ip": ""}, "needs ip"),
        ({"type": "global", "market_id": "m"}, "takes no market_id"),
        ({"type": "global", "surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_request_is_refused_at_the_caller(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidPayloadError, match=named):
        reconcile.apply_async(kwargs=fields)


def test_names_are_trimmed() -> None:
    assert Reconcile.checked(type="market", **ADMIN | {"market_id": " m "}).market_id == "m"


def test_a_node_far_behind_the_last_report_is_not_believed(reconciler: Reconciler, node: StandinNode) -> None:
    """Its state would be compared with positions that it cannot know yet, and nothing would differ."""
    reconciler.market_rows.market()
    ahead = reconciler.market()
    with reconciler.market_rows.database.session() as session, session.begin():
        session.get_one(Report, ahead.report_id).block = node.ledger + MAX_BLOCKS_BEHIND + 1
    done = reconciler.market()
    assert done.status == "partial"
    assert "the last report was of block" in (reconciler.lines(done.report_id)["m"].error or "")
