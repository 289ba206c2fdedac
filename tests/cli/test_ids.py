"""Ids in listings and as arguments: never cut at 80 columns, and any beginning that only one thing has will do."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import click
import pytest
from sqlmodel import Session, col

from tasks.backups.models import BackupRun
from tasks.markets.models import Conflict, Market, OracleRefusal
from tasks.reconciliation.models import MarketLine, PositionRow, Report
from taskyard.cli.kit import tables
from taskyard.cli.kit.id_prefixes import IdParam, TextIdParam
from taskyard.database.columns import utc_now
from taskyard.flows.models import FlowRow
from taskyard.history.models import BulkOperation, DeadLetter, Run
from taskyard.webhooks.models import Delivery, Endpoint, Event
from tests.cli.conftest import Command
from tests.databases import Database

FIRST, SECOND = UUID("5b0a0827-c925-4119-9f75-dd7cf0ffde24"), UUID("5b0a0827-c925-4119-9f75-aaaaaaaaaaaa")
ERROR: Any = {"error_type": "E", "error_message": "m" * 200, "error_signature": "s"}
LONG = "market-" + 80 * "x"  # longer than a line


def rows(session: Session, one: UUID) -> None:
    """Add one of all that has an id."""
    text = f"{LONG}-{one}"
    session.add_all(
        [
            Run(
                id=str(one),
                task="reconciliation.reconcile",
                queue="reconciliation",
                state="failed",
                enqueued_at=utc_now(),
            ),
            DeadLetter(id=one, run_id=str(one), attempt=1, queue="q", reason="exhausted", body=b"", **ERROR),
            BulkOperation(id=one, verb="redrive", who="me", total=1, state="done", reason="r" * 100),
            FlowRow(id=one, name="a-flow-with-a-long-name", key=str(one), reason="r" * 100),
            Endpoint(id=one, url="https://subscriber.example/a/rather/long/path", description="d" * 60),
            Event(id=str(one), type="market.resolution_conflict", body=b""),
            BackupRun(id=one, target="shop", state="failed", holder="h", worker="w", reason="r" * 200),
            Report(id=one, scope="global", state="completed", status="partial"),
            Market(id=text, title="t" * 100, state="disputed"),
        ]
    )
    session.flush()
    session.add_all(
        [
            Delivery(id=one, event_id=str(one), endpoint_id=one, event_type="market.resolution_conflict"),
            MarketLine(report_id=one, market_id=text, state="done", status="partial", error="e" * 200),
            PositionRow(
                report_id=one, market_id=text, address="a" * 56, outcome="yes", kind="mismatch", severity="warning"
            ),
            Conflict(id=one, market_id=text, resolved_outcome="yes", claimed_outcome="no", ledger=1),
            OracleRefusal(id=UUID(int=one.int ^ 1), market_id=text, claimed_outcome="no", ledger=1, reason="r" * 100),
        ]
    )


@pytest.fixture
def fill(database: Database) -> Callable[[UUID], None]:
    def add(one: UUID) -> None:
        with database.session() as session, session.begin():
            rows(session, one)

    return add


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        *[(words, FIRST) for words in ("jobs ls", "dlq ls", "dlq operations", "flows ls", "backups history")],
        *[(words, FIRST) for words in ("webhooks endpoints ls", "webhooks deliveries ls", "markets conflicts")],
        ("markets refusals", UUID(int=FIRST.int ^ 1)),
        *[(words, f"{LONG}-{FIRST}") for words in ("markets status", "markets disputes", "recon report")],
        ("recon drifts", f"{LONG}-{FIRST}"),
    ],
)
def test_no_listing_cuts_an_id_at_80_columns(
    command: Command, fill: Callable[[UUID], None], monkeypatch: pytest.MonkeyPatch, words: str, wanted: object
) -> None:
    fill(FIRST)
    monkeypatch.setattr(tables, "_terminal_width", lambda: 80)

    shown = command(*words.split())

    assert shown.exit_code == 0, shown.output
    assert any(line.startswith(str(wanted)) for line in shown.stdout.splitlines()), shown.output
    if words == "markets conflicts":
        assert "claimed" in shown.stdout, "a long name hides itself, not the others"


SHOWN = (
    *("jobs show", "jobs logs", "dlq show", "dlq operations", "dlq discard --dry-run"),
    *("flows show", "flows cancel --dry-run", "webhooks endpoints show", "webhooks endpoints enable"),
    *("webhooks recover --since 2h --dry-run", "webhooks deliveries show", "webhooks deliveries ls --endpoint"),
    *("backups show", "recon report", "recon drifts", "markets override --dry-run"),
)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("words", SHOWN)
def test_the_beginning_of_an_id_is_enough_and_one_of_several_is_refused(
    command: Command, fill: Callable[[UUID], None], words: str
) -> None:
    fill(FIRST)

    alone = command(*words.split(), "5b0a0827-c9", "--json")
    fill(SECOND)
    ambiguous = command(*words.split(), "5b0a0827-c9", "--json")

    assert alone.exit_code == 0, alone.output
    json.loads(alone.stdout)
    assert (ambiguous.exit_code, ambiguous.stdout, len(ambiguous.stderr.splitlines())) == (2, "", 1)
    assert all(str(one)[:-1] in ambiguous.stderr for one in (FIRST, SECOND))


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    "given", ["5", "5b0a0827", "5B0A0827-C9", "5b0a0827c9", "5b0a0827-c925-4119-9f75-", str(FIRST), FIRST.hex, FIRST]
)
def test_an_id_is_found_however_it_is_written(fill: Callable[[UUID], None], given: str | UUID) -> None:
    fill(FIRST)

    assert IdParam("dead letter", col(DeadLetter.id))(given) == FIRST


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("given", ["", "-", "5-b0a0827", "5b0a0827-c9-", "nobody", "%", FIRST.hex + "0", "5b0a 0827"])
def test_what_is_no_beginning_of_an_id_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter, match="is not an id"):
        IdParam("dead letter", col(DeadLetter.id))(given)


@pytest.mark.usefixtures("command")
def test_a_text_id_that_is_the_beginning_of_another_is_itself(database: Database) -> None:
    with database.session() as session, session.begin():
        session.add_all([Market(id="m"), Market(id="m%1"), Market(id="other")])

    found = [TextIdParam(col(Market.id))(given) for given in ("m", "m%", "o", "nobody")]

    assert found == ["m", "m%1", "other", "nobody"]
