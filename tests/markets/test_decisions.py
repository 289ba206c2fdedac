"""`markets`: what operators decide on refusals, conflicts and disputes, and what the guard will say."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result

from audit.models import AdminAction
from config.queues import MARKET_RESOLUTION
from tasks.markets.metrics import figures
from tasks.markets.models import Conflict
from tasks.markets.tasks import open_store
from taskyard.database.columns import utc_now
from taskyard.history.operator_log import Operation
from taskyard.settings import current_settings
from tests.markets.market_platform import MarketPlatform
from tests.markets.market_rows import MarketRows, resolved_event

RESOLVE = ("resolve", "m", "--outcome", "yes", "--ledger", "42")
DECIDED = ("--yes", "--reason", "asked the council")


@pytest.fixture
def market_rows(platform: MarketPlatform, monkeypatch: pytest.MonkeyPatch) -> Iterator[MarketRows]:
    """Rows in a platform whose oracle guard is on, with one market of two bets."""
    monkeypatch.setenv("MARKET_ORACLE_GUARD", "true")
    current_settings.cache_clear()
    open_store.cache_clear()
    rows = MarketRows(platform.database, market_oracle_guard=True)
    rows.predict(("yes", 5), ("no", 5), market_id=rows.market(outcomes=["yes", "no"]))
    yield rows
    open_store.cache_clear()


def items(platform: MarketPlatform, *arguments: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = json.loads(platform.command("markets", *arguments, "--json").stdout)["items"]
    return found


def open_reviews(platform: MarketPlatform) -> dict[str, float]:
    with platform.session() as session:
        found = [each for each in figures(session) if each.name == "taskyard_market_reviews"]
    return {each.labels["kind"]: each.value for each in found}


def refuse(market_rows: MarketRows) -> None:
    assert market_rows.markets().resolve(resolved_event()).state == "refused"


def quotes(*prices: str) -> list[str]:
    now = utc_now().isoformat()
    return [text for number, price in enumerate(prices) for text in ("--quote", f"source{number}", price, now)]


def test_a_refusal_is_listed_and_overridden(platform: MarketPlatform, market_rows: MarketRows) -> None:
    refuse(market_rows)
    [refusal] = items(platform, "refusals")
    assert (refusal["claimed_outcome"], refusal["reason"]) == ("yes", "0 fresh sources of 3")
    assert open_reviews(platform) == {"conflict": 0, "refusal": 1}

    answer = platform.command("markets", "override", refusal["id"][:8], *DECIDED, "--json")

    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["paid"] == "10"
    resolution = market_rows.resolution()
    assert resolution is not None
    assert (resolution.winning_outcome, resolution.event_at) == ("yes", resolved_event().timestamp)
    assert len(market_rows.events("market.resolved")) == 1
    assert (items(platform, "refusals"), open_reviews(platform)) == ([], {"conflict": 0, "refusal": 0})
    [decided] = items(platform, "refusals", "--all")
    assert (decided["decision"], decided["decided_why"]) == ("overridden", "asked the council")
    assert platform.count(Operation, verb="markets override", target=refusal["id"], reason="asked the council") == 1
    assert platform.count(AdminAction, action="admin.market.override", target="m") == 1


def test_a_conflict_is_acknowledged_once_and_changes_no_resolution(
    platform: MarketPlatform, market_rows: MarketRows
) -> None:
    platform.command("markets", "settle", "m", "--outcome", "yes", "--ledger", "1", *DECIDED)
    market_rows.markets().resolve(resolved_event("no"))
    [conflict] = items(platform, "conflicts")

    first = platform.command("markets", "acknowledge", conflict["id"], *DECIDED)
    second = platform.command("markets", "acknowledge", conflict["id"], *DECIDED)

    assert (first.exit_code, second.exit_code) == (0, 1)
    assert "was acknowledged before" in second.stderr
    assert items(platform, "conflicts") == []
    assert market_rows.get_market().winning_outcome == "yes"
    assert platform.count(Operation, verb="markets acknowledge") == 1


def test_many_are_acknowledged_together_or_not_at_all(platform: MarketPlatform, market_rows: MarketRows) -> None:
    refuse(market_rows)
    [refusal] = items(platform, "refusals")
    nobody = "00000000-0000-4000-8000-000000000000"

    answer = platform.command("markets", "acknowledge", refusal["id"], nobody, *DECIDED)

    assert (answer.exit_code, len(answer.stderr.splitlines())) == (3, 1)
    assert len(items(platform, "refusals")) == 1
    assert platform.count(Operation) == 0


def test_a_dispute_is_listed_and_settled_against_the_event_that_waits(
    platform: MarketPlatform, market_rows: MarketRows
) -> None:
    market_rows.market("d", outcomes=["yes", "no"], state="disputed")
    market_rows.predict(("yes", 3), ("no", 4), market_id="d")
    assert [row["id"] for row in items(platform, "disputes")] == ["d"]

    answer = platform.command("markets", "settle", "d", "--outcome", "no", "--ledger", "9", *DECIDED)

    assert answer.exit_code == 0, answer.output
    assert items(platform, "disputes") == []
    assert market_rows.results("d") == {"won": 1, "lost": 1}
    assert market_rows.markets().resolve(resolved_event(market_id="d")).state == "conflict"
    assert platform.count(Operation, verb="markets settle", target="d", reason="asked the council") == 1


def test_a_dispute_that_was_unfounded_lets_the_event_resolve(platform: MarketPlatform) -> None:
    market_rows = MarketRows(platform.database)
    market_rows.market("d", state="disputed")
    assert market_rows.markets().resolve(resolved_event(market_id="d")).state == "disputed"

    answer = platform.command("markets", "reopen", "d", *DECIDED)

    assert answer.exit_code == 0, answer.output
    assert market_rows.markets().resolve(resolved_event(market_id="d")).state == "resolved"
    assert platform.count(AdminAction, action="admin.market.reopen", target="d") == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_decisions_show_first_what_they_would_do(platform: MarketPlatform, market_rows: MarketRows) -> None:
    refuse(market_rows)
    market_rows.market("d", state="disputed")
    [refusal] = items(platform, "refusals")

    answers = [
        platform.command("markets", *arguments, "--dry-run")
        for arguments in (
            ("override", refusal["id"]),
            ("acknowledge", refusal["id"]),
            ("settle", "m", "--outcome", "yes", "--ledger", "1"),
            ("reopen", "d"),
        )
    ]

    assert [answer.exit_code for answer in answers] == [0, 0, 0, 0]
    assert answers[0].stdout == "m would be settled as yes: pool 10, fee 0\n"
    assert (market_rows.get_market().state, market_rows.get_market("d").state) == ("open", "disputed")
    assert (len(items(platform, "refusals")), market_rows.results()) == (1, {None: 2})
    assert (platform.count(Operation), platform.count(AdminAction), platform.is_idle()) == (0, 0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("settle", "m", "--outcome", "maybe", "--ledger", "1", *DECIDED), 1, "its outcomes are 'yes', 'no'"),
        (("settle", "nowhere", "--outcome", "yes", "--ledger", "1", *DECIDED), 3, "no market 'nowhere'"),
        (("settle", "m", "--outcome", "yes", "--ledger", "1", "--yes"), 2, "--reason is required"),
        (("reopen", "m", *DECIDED), 1, "is not disputed, it is open"),
        (("reopen", "nowhere", *DECIDED), 3, "no market 'nowhere'"),
        (("override", "12345678", *DECIDED), 3, "no oracle refusal with an id that begins with '12345678'"),
        (("override", "xyz", *DECIDED), 2, "is not an id"),
        (("acknowledge", *DECIDED), 2, "ID..."),
        (("refusals", "--market", "nowhere"), 3, "no market 'nowhere'"),
        ((*RESOLVE, "--quote", "a", "cheap", "5m", "--dry-run"), 2, "--quote"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_decision_that_cannot_be_is_one_clear_line(
    platform: MarketPlatform, market_rows: MarketRows, arguments: tuple[str, ...], code: int, said: str
) -> None:
    answer = platform.command("markets", *arguments)

    assert (answer.exit_code, len(answer.stderr.splitlines())) == (code, 1), answer.output
    assert said in answer.stderr
    assert (platform.count(Operation), platform.count(AdminAction), market_rows.count(Conflict)) == (0, 0, 0)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.usefixtures("market_rows")
def test_resolve_says_what_the_guard_will_say(platform: MarketPlatform) -> None:
    def dry_run(*more: str) -> Result:
        return platform.command("markets", *RESOLVE, *more, "--dry-run")

    none, good, apart = dry_run(), dry_run(*quotes("100", "100.1", "99.9")), dry_run(*quotes("100", "100", "150"))
    old = dry_run(*quotes("1", "1", "1"), "--at", (utc_now() - timedelta(days=2)).isoformat())

    assert (none.exit_code, apart.exit_code, old.exit_code) == (1, 1, 1)
    assert "the oracle guard would refuse m as yes: 0 fresh sources of 3" in none.stderr
    assert "bp from the median" in apart.stderr
    assert "0 fresh sources" in old.stderr
    assert good.stdout == "would resolve m as yes; the oracle guard accepts: 3 sources within 100 bp\n"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_resolve_enqueues_nothing_that_the_guard_would_refuse(
    platform: MarketPlatform, market_rows: MarketRows
) -> None:
    market_rows.market("other")

    refused = platform.command("markets", *RESOLVE, *DECIDED)
    accepted = platform.command("markets", *RESOLVE, *quotes("1", "1", "1"), *DECIDED)

    assert (refused.exit_code, accepted.exit_code) == (1, 0)
    assert platform.waiting(MARKET_RESOLUTION) == 1
