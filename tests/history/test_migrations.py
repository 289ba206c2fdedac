"""The migrations: they lead to what the models say, on both databases."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import inspect

from taskyard.migrations import schema
from tests.databases import Database


def test_an_upgraded_database_has_the_schema_of_the_models(empty_database: Database) -> None:
    schema.upgrade(empty_database.engine)

    assert schema.differences(empty_database.engine) == []


def test_a_missing_table_is_seen_as_a_difference(empty_database: Database) -> None:
    """Proof that the comparison above can fail."""
    assert len(schema.differences(empty_database.engine)) >= 9


def test_an_empty_database_stands_at_no_revision(empty_database: Database) -> None:
    seen = schema.standings(empty_database.engine)

    assert {(one.current, one.is_current) for one in seen} == {(None, False)}
    assert [one.owner for one in seen] == ["taskyard", "audit", "backups", "markets", "reconciliation"]


def test_an_upgrade_says_where_it_started_and_a_second_one_changes_nothing(empty_database: Database) -> None:
    first = schema.upgrade(empty_database.engine)
    second = schema.upgrade(empty_database.engine)

    assert {one.current for one in first} == {None}
    assert all(one.current == one.head for one in second)
    assert schema.is_current(empty_database.engine)


def test_upgrades_at_the_same_moment_wait_for_each_other(empty_database: Database) -> None:
    """Several workers of a deployment may start the upgrade together."""
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: schema.upgrade(empty_database.engine), range(4)))

    assert sum(result[0].current is None for result in results) == 1
    assert inspect(empty_database.engine).has_table("taskyard_runs")
