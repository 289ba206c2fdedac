"""Global runs by real workers: a failing or late market, a lost worker, a lost broker; the report always comes."""

from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from tasks.app import app
from tasks.reconciliation.models import MarketLine, ReconciliationReport
from taskyard.database.columns import utc_now
from taskyard.flows.models import FlowRow, StepRow
from tests.markets.market_platform import MarketPlatform
from tests.markets.market_rows import MarketRows
from tests.waiting import wait_for

LIMIT = 60  # seconds


@pytest.fixture
def market_rows(platform: MarketPlatform) -> MarketRows:
    return MarketRows(platform.database)


@pytest.fixture
def chain(platform: MarketPlatform, node: StandinNode, monkeypatch: pytest.MonkeyPatch) -> StandinNode:
    """The node, in the environment of all workers."""
    for name, value in {
        "CHAIN_PROVIDER": "soroban",
        "CHAIN_RPC_URL": node.url,
        "CHAIN_CONTRACT": CONTRACT,
        "CHAIN_TRIES": "1",
        "CHAIN_TIMEOUT": "60",
    }.items():
        platform.env[name] = value
        monkeypatch.setenv(name, value)
    return node


def fill(market_rows: MarketRows, chain: StandinNode, markets: int) -> list[str]:
    """Make markets whose sides agree."""
    names = [f"m{number:03}" for number in range(markets)]
    for name in names:
        market_rows.market(name)
        market_rows.predict(("yes", 5), ("no", 7), market_id=name, address=account(1))
        chain.put(name, [(account(1), "yes", 5), (account(1), "no", 7)])
    return names


def report(platform: MarketPlatform) -> ReconciliationReport | None:
    with platform.session() as session:
        return session.scalars(select(ReconciliationReport)).one_or_none()


def completed(platform: MarketPlatform) -> ReconciliationReport:
    """Wait for the report."""

    def look() -> ReconciliationReport | None:
        found = report(platform)
        return found if found is not None and found.state == "completed" else None

    found = wait_for(look, LIMIT, "the report is complete")
    assert found is not None
    return found


def done_lines(platform: MarketPlatform) -> int:
    return platform.count(MarketLine, state="done")


def test_two_hundred_markets_with_a_failing_one_make_one_report(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    names = fill(market_rows, chain, 200)
    chain.fail(names[77])
    chain.put(names[5], [(account(1), "yes", 5), (account(1), "no", 6)])
    for number in range(2):
        platform.worker(f"worker{number}")

    platform.send("reconciliation.reconcile", {"type": "global"})

    done = completed(platform)
    assert (done.status, done.markets, done.markets_ok, done.markets_partial) == ("partial", 200, 199, 1)
    assert (done.matches, done.mismatches, done.drift) == (2 * 199 - 1, 1, 1)
    assert platform.count(ReconciliationReport) == 1
    with platform.session() as session:
        failing = session.scalars(select(MarketLine).where(col(MarketLine.status) == "partial")).one()
    assert failing.market_id == names[77]
    assert platform.dead_letters() == []


def test_the_report_comes_without_a_sweep(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """And every message is handled; only the one that will look at the flow's deadline waits for its time."""
    fill(market_rows, chain, 3)
    platform.worker()

    platform.send("reconciliation.reconcile", {"type": "global"})

    assert completed(platform).status == "ok"
    wait_for(lambda: platform.left() == {"maintenance": 1}, LIMIT, "one message is left in the queues")


def test_a_worker_killed_between_the_members_and_the_report_does_not_cost_the_report(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """The last member is held at the node; its worker dies there, with the run's last part in its hands."""
    names = fill(market_rows, chain, 6)
    gate = chain.hold(names[-1])
    first = platform.worker("first")
    platform.send("reconciliation.reconcile", {"type": "global"})
    wait_for(lambda: done_lines(platform) == 5, LIMIT, "five of six markets are compared")
    first.kill()
    gate.set()
    assert report(platform).state == "running"  # type: ignore[union-attr]  # the run has begun

    platform.worker("second")

    done = completed(platform)
    assert (done.status, done.markets_ok, done.matches) == ("ok", 6, 12)


def test_a_broker_that_lost_everything_does_not_cost_the_report(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """All messages are gone: what is left to do is found in SQL."""
    names = fill(market_rows, chain, 4)
    gate = chain.hold(names[-1])
    first = platform.worker("first")
    platform.send("reconciliation.reconcile", {"type": "global"})
    wait_for(lambda: done_lines(platform) == 3, LIMIT, "three of four markets are compared")
    first.kill()
    platform.valkey.flush()
    gate.set()
    with platform.session() as session, session.begin():  # the sweeper would look at them half a minute later
        session.execute(update(StepRow).where(col(StepRow.check_at).is_not(None)).values(check_at=utc_now()))
    platform.worker("second")

    def swept() -> bool:
        platform.send("flows.sweep", {})
        found = report(platform)
        return found is not None and found.state == "completed"

    wait_for(swept, LIMIT, "sweeps bring the report")
    done = completed(platform)
    assert (done.status, done.markets_ok) == ("ok", 4)


def test_a_market_that_does_not_answer_before_the_deadline_does_not_keep_the_report(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """And when it answers at last, that changes nothing, and nothing of the run is left."""
    names = fill(market_rows, chain, 3)
    gate = chain.hold(names[-1])
    platform.worker(RECONCILIATION_DEADLINE="2")
    platform.send("reconciliation.reconcile", {"type": "global"})

    def swept() -> bool:
        platform.send("flows.sweep", {})
        found = report(platform)
        return found is not None and found.state == "completed"

    wait_for(swept, LIMIT, "a sweep finds the run too late")
    done = completed(platform)
    assert (done.status, done.markets_ok, done.markets_failed) == ("partial", 2, 1)
    gate.set()
    wait_for(lambda: platform.count(FlowRow, state="succeeded"), LIMIT, "the flow of the run ends")
    assert completed(platform).markets_failed == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fields", [{"type": "weekly"}, {"type": "market", "market_id": "m"}, {}])
def test_a_wrong_request_of_another_program_is_a_dead_letter_at_once(
    platform: MarketPlatform, fields: dict[str, Any]
) -> None:
    platform.worker()

    app.send_task("reconciliation.reconcile", kwargs=fields, queue="reconciliation", ignore_result=True)

    wait_for(platform.dead_letters, LIMIT, "the dead letter is written")
    (letter,) = platform.dead_letters()
    assert (letter.reason, letter.attempt) == ("invalid_payload", 1)
    assert platform.count(ReconciliationReport) == 0
