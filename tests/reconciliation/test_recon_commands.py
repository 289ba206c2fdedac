"""`recon`: what the commands print and refuse, and how they end."""

import json
from uuid import UUID, uuid4

import pytest

from config.queues import RECONCILIATION
from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from taskyard.history.operator_log import Operation
from tests.markets.market_platform import MarketPlatform
from tests.markets.market_rows import MarketRows
from tests.reconciliation.reconciler import Reconciler


@pytest.fixture
def reconciler(platform: MarketPlatform, node: StandinNode) -> Reconciler:
    chain = {"chain_provider": "soroban", "chain_rpc_url": node.url, "chain_contract": CONTRACT, "chain_tries": 1}
    return Reconciler(MarketRows(platform.database), **chain)


def test_run_enqueues_and_names_the_report_to_come(platform: MarketPlatform) -> None:
    answer = platform.command("recon", "run", "--json")

    assert answer.exit_code == 0, answer.output
    assert UUID(json.loads(answer.stdout)["report_id"]).version == 5
    assert platform.waiting(RECONCILIATION) == 1
    assert platform.count(Operation, verb="recon run") == 1


@pytest.mark.parametrize(
    "case", [(5, 0, ""), (4, 1, "critical drift of 1"), (None, 4, "1 of 1")], ids=["equal", "drift", "partial"]
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_run_with_wait_ends_as_the_report_does(
    platform: MarketPlatform, reconciler: Reconciler, node: StandinNode, case: tuple[int | None, int, str]
) -> None:
    chain_amount, code, said = case
    reconciler.market_rows.predict(("yes", 5), market_id=reconciler.market_rows.market(), address=account(1))
    if chain_amount is None:
        node.fail("m")
    else:
        node.put("m", [(account(1), "yes", chain_amount)])
    platform.worker(CHAIN_PROVIDER="soroban", CHAIN_RPC_URL=node.url, CHAIN_CONTRACT=CONTRACT, CHAIN_TRIES="1")

    answer = platform.command("recon", "run", "--market", "m", "--wait", "60", "--json")

    assert (answer.exit_code, said in answer.stderr) == (code, True), answer.output
    assert json.loads(answer.stdout)["state"] == "completed"


def test_report_shows_the_newest_and_the_markets_that_need_a_look(
    platform: MarketPlatform, reconciler: Reconciler, node: StandinNode
) -> None:
    for market_id, amount in (("a", 5), ("b", 4)):
        reconciler.market_rows.predict(
            ("yes", 5), market_id=reconciler.market_rows.market(market_id), address=account(1)
        )
        node.put(market_id, [(account(1), "yes", amount)])
    started = reconciler.run()
    reconciler.check(started.report_id, "a", "b")
    reconciler.finish(started.report_id)

    shown = json.loads(platform.command("recon", "report", "--json").stdout)
    everything = json.loads(platform.command("recon", "report", str(started.report_id), "--all", "--json").stdout)

    assert (shown["id"], shown["drift"], shown["severity"]) == (str(started.report_id), "1", "critical")
    assert [line["market_id"] for line in shown["lines"]] == ["b"]
    assert [line["market_id"] for line in everything["lines"]] == ["a", "b"]
    assert "critical" in platform.command("recon", "report").stdout


def test_drifts_are_listed_page_by_page(platform: MarketPlatform, reconciler: Reconciler, node: StandinNode) -> None:
    reconciler.market_rows.market()
    reconciler.market_rows.predict(*[(f"o{number}", 2**70) for number in range(5)], address=account(1))
    node.put("m", [(account(1), "o0", 2**70), (account(1), "o1", 2**70 - 1)])
    reconciler.market()

    first = json.loads(platform.command("recon", "drifts", "--limit", "3", "--json").stdout)
    second = json.loads(platform.command("recon", "drifts", "--after", first["next"], "--json").stdout)

    assert [row["outcome"] for row in first["items"]] == ["o1", "o2", "o3"]
    assert ([row["outcome"] for row in second["items"]], second["next"]) == (["o4"], None)
    assert first["items"][0]["difference"] == "1"
    assert "missing_on_chain" in platform.command("recon", "drifts", "--market", "m").stdout
    assert platform.command("recon", "drifts", "--market", "nope").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "--market", "nowhere"), 3, "no market 'nowhere'"),
        (("run", "--market", " "), 2, "market_id"),
        (("run", "--wait", "-1"), 2, "--wait"),
        (("report",), 3, "no reconciliation report yet"),
        (("report", str(uuid4())), 3, "no reconciliation report"),
        (("report", "newest"), 2, "UUID"),
        (("drifts",), 3, "no reconciliation report yet"),
        (("drifts", "--after", "xyz"), 2, "no cursor"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    platform: MarketPlatform, arguments: tuple[str, ...], code: int, said: str
) -> None:
    answer = platform.command("recon", *arguments)

    assert answer.exit_code == code
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert (platform.is_idle(), platform.count(Operation)) == (True, 0)
