"""Global runs by real workers: a chord, a failing market, a lost worker, a lost broker; the report always comes."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlmodel import col

from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from tasks.app import app
from tasks.reconciliation.models import MarketLine, ReconciliationReport
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
        "RECONCILIATION_MEMBER_TIMEOUT": "1",
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


def test_the_report_comes_from_the_chord_alone(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """No sweep runs here, and every message is handled."""
    fill(market_rows, chain, 3)
    platform.worker()

    platform.send("reconciliation.reconcile", {"type": "global"})

    assert completed(platform).status == "ok"
    wait_for(platform.is_idle, LIMIT, "nothing is left in the queues")


def test_a_worker_killed_between_the_members_and_the_report_does_not_cost_the_report(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """The last member is held at the node; its worker dies there, with the chord's last part in its hands."""
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
    """Messages, chord and results are gone: what is left to do is found in SQL."""
    names = fill(market_rows, chain, 4)
    gate = chain.hold(names[-1])
    first = platform.worker("first")
    platform.send("reconciliation.reconcile", {"type": "global"})
    wait_for(lambda: done_lines(platform) == 3, LIMIT, "three of four markets are compared")
    first.kill()
    platform.valkey.flush()
    gate.set()
    platform.worker("second")

    def swept() -> bool:
        platform.send("reconciliation.sweep", {})
        found = report(platform)
        return found is not None and found.state == "completed"

    wait_for(swept, LIMIT, "sweeps bring the report")
    done = completed(platform)
    assert (done.status, done.markets_ok) == ("ok", 4)


def test_the_last_member_can_die_after_its_line_and_before_the_chord_knows(
    platform: MarketPlatform, market_rows: MarketRows, chain: StandinNode
) -> None:
    """The lines are all done, the chord's count is lost: one sweep completes the report."""
    fill(market_rows, chain, 2)
    worker = platform.worker()
    platform.send("reconciliation.reconcile", {"type": "global"})
    done = completed(platform)
    worker.kill()
    _set_back(platform, done.id)
    platform.valkey.flush()

    platform.send("reconciliation.sweep", {})
    platform.worker("second")

    assert completed(platform).markets_ok == 2


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


def _set_back(platform: MarketPlatform, report_id: UUID) -> None:
    """Make the report as it was before its last step."""
    with platform.session() as session, session.begin():
        found = session.get_one(ReconciliationReport, report_id)
        found.state, found.status, found.completed_at, found.markets_ok = "running", None, None, 0
