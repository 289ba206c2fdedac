"""The sample and the demo's acts on it."""

import pytest
from sqlalchemy import select
from sqlmodel import Session

from scripts.demo import markets as market_acts
from scripts.standins.market_sample import add_sample
from scripts.standins.receiver import Receiver
from scripts.standins.soroban_node import StandinNode, account
from tasks.markets.models import Prediction
from taskyard.database.engine import open_engine
from tests.databases import Database, DatabaseServers
from tests.markets.market_platform import MarketPlatform


def test_the_same_seed_gives_the_same_rows(database: Database, database_servers: DatabaseServers) -> None:
    other = open_engine(database_servers.make(database.kind))
    rows = []
    for engine in (database.engine, other):
        with Session(engine) as session, session.begin():
            add_sample(session, [account(1), account(2)], markets=2, predictions=9)
            rows.append([row.model_dump() for row in session.scalars(select(Prediction).order_by("id"))])
    other.dispose()

    assert rows[0] == rows[1]
    assert len(rows[0]) == 9


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_acts_of_the_demo_show_what_they_say(platform: MarketPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with StandinNode() as node, Receiver() as receiver:
        for name, value in market_acts.chain_variables(node).items():
            monkeypatch.setenv(name, value)
            platform.env[name] = value
        sample = market_acts.load_sample()
        platform.worker()

        resolution = market_acts.show_resolution(sample, receiver, said.append)
        report = market_acts.show_reconciliation(sample, node, said.append)

    assert (resolution.markets, resolution.messages) == (5, 5)
    assert resolution.pool == resolution.paid_and_fee > 2**64
    assert (report.drift, report.mismatches, report.matches) == ("1000", 1, report.keys - 1)
    assert len(said) == 6
