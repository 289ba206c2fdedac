"""`markets`: what the commands print, refuse and leave behind."""

import json

import pytest

from config.queues import MARKET_RESOLUTION
from taskyard.history.operator_log import Operation
from tests.markets.market_platform import MarketPlatform
from tests.markets.market_rows import MarketRows, resolved_event

RESOLVE = ("resolve", "m", "--outcome", "yes", "--ledger", "42")


@pytest.fixture
def market_rows(platform: MarketPlatform) -> MarketRows:
    return MarketRows(platform.database)


def test_resolve_enqueues_and_leaves_a_record(platform: MarketPlatform, market_rows: MarketRows) -> None:
    market_rows.predict(("yes", 1), market_id=market_rows.market(outcomes=["yes", "no"]))

    answer = platform.command("markets", *RESOLVE, "--yes", "--reason", "indexer is down", "--json")

    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["confirmed"] == 1
    assert platform.waiting(MARKET_RESOLUTION) == 1
    assert platform.count(Operation, verb="markets resolve", target="m", reason="indexer is down") == 1


def test_resolve_dry_run_changes_nothing(platform: MarketPlatform, market_rows: MarketRows) -> None:
    market_rows.market()

    answer = platform.command("markets", *RESOLVE, "--dry-run")

    assert (answer.exit_code, answer.output) == (0, "would resolve m as yes; the oracle guard is off\n")
    assert (platform.is_idle(), platform.count(Operation)) == (True, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*RESOLVE,), 2, "confirm with --yes"),
        ((*RESOLVE, "--yes"), 2, "--reason is required"),
        (("resolve", "m", "--ledger", "1", "--yes"), 2, "--outcome"),
        (("resolve", "m", "--outcome", "yes", "--ledger", "-1", "--yes"), 2, "--ledger"),
        (("resolve", "m", "--outcome", "", "--ledger", "1", "--yes", "--reason", "r"), 2, "winning_outcome"),
        (("resolve", "m", "--outcome", "maybe", "--ledger", "1", "--yes", "--reason", "r"), 1, "no outcome 'maybe'"),
        (("resolve", "done", "--outcome", "no", "--ledger", "1", "--yes", "--reason", "r"), 1, "resolved already"),
        (
            ("resolve", "nowhere", "--outcome", "no", "--ledger", "1", "--yes", "--reason", "r"),
            3,
            "no market 'nowhere'",
        ),
        (("status", "nowhere"), 3, "no market 'nowhere'"),
        (("status", "--state", "asleep"), 2, "asleep"),
        (("status", "--after", "xyz"), 2, "no cursor"),
        (("conflicts", "--market", "nowhere"), 3, "no market 'nowhere'"),
        (("conflicts", "--limit", "0"), 2, "--limit"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    platform: MarketPlatform, market_rows: MarketRows, arguments: tuple[str, ...], code: int, said: str
) -> None:
    market_rows.market(outcomes=["yes", "no"])
    market_rows.market("done")
    market_rows.markets().resolve(resolved_event(market_id="done"))

    answer = platform.command("markets", *arguments)

    assert answer.exit_code == code
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert (platform.is_idle(), platform.count(Operation)) == (True, 0)


def test_status_shows_one_market_with_its_counts(platform: MarketPlatform, market_rows: MarketRows) -> None:
    market_rows.predict(("yes", 2**70), ("no", 1), market_id=market_rows.market(fee_bp=100))
    market_rows.predict(("yes", 5), state="pending")
    market_rows.markets().resolve(resolved_event())
    market_rows.markets().resolve(resolved_event("no"))

    shown = json.loads(platform.command("markets", "status", "m", "--json").stdout)

    assert shown["predictions"] == {"pending": 1, "confirmed": 2, "failed": 0}
    assert shown["results"] == {"won": 1, "lost": 1, "rejected": 1}
    assert (shown["pool"], shown["kind"], shown["conflicts"]) == (str(2**70 + 1), "shared", 1)
    assert "resolved" in platform.command("markets", "status", "m").stdout


def test_status_lists_markets_page_by_page(platform: MarketPlatform, market_rows: MarketRows) -> None:
    for number in range(5):
        market_rows.market(f"m{number}")

    seen, after = [], None
    while True:
        page = json.loads(
            platform.command(
                "markets", "status", "--limit", "2", "--json", *(("--after", after) if after else ())
            ).stdout
        )
        seen += [row["id"] for row in page["items"]]
        if (after := page["next"]) is None:
            break

    assert seen == ["m4", "m3", "m2", "m1", "m0"]
    assert json.loads(platform.command("markets", "status", "--state", "resolved", "--json").stdout)["items"] == []


def test_conflicts_are_listed(platform: MarketPlatform, market_rows: MarketRows) -> None:
    market_rows.market()
    market_rows.markets().resolve(resolved_event())
    for ledger in (50, 51):
        market_rows.markets().resolve(resolved_event("no", ledger=ledger))

    shown = json.loads(platform.command("markets", "conflicts", "--market", "m", "--json").stdout)["items"]

    assert [(row["resolved_outcome"], row["claimed_outcome"], row["ledger"]) for row in shown] == [
        ("yes", "no", 51),
        ("yes", "no", 50),
    ]
    assert "claimed" in platform.command("markets", "conflicts").stdout
