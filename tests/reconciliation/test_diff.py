"""The comparison: every class, exact differences, and severities that follow the weight of a difference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reconciliation.comparison import ComparedPosition, DriftThresholds, PositionTotals, compare, with_addresses

PLAIN = DriftThresholds(tolerance=0, critical_bp=100)
keys = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["yes", "no", "a::b", ""]))
sides = st.dictionaries(keys, st.integers(0, 2**130), max_size=12)


def test_every_class_has_its_amounts_and_its_difference() -> None:
    db = {("a", "yes"): 5, ("b", "yes"): 2**70, ("c", "yes"): 9}
    chain = {("a", "yes"): 5, ("b", "yes"): 2**70 + 3, ("d", "no"): 4}

    rows, totals = compare(db, chain, PLAIN)

    assert [row[:6] for row in rows] == [
        ("a", "yes", "match", 5, 5, 0),
        ("b", "yes", "mismatch", 2**70, 2**70 + 3, -3),
        ("c", "yes", "missing_on_chain", 9, None, None),
        ("d", "no", "missing_in_db", 0, 4, None),
    ]
    assert (totals.keys, totals.matches, totals.mismatches) == (4, 1, 1)
    assert (totals.missing_on_chain, totals.missing_in_db, totals.drift) == (1, 1, 3 + 9 + 4)


def test_a_key_is_a_pair_and_not_a_joined_text() -> None:
    """`a::b` + `c` and `a` + `b::c` are different positions."""
    rows, _ = compare({("a::b", "c"): 1}, {("a", "b::c"): 1}, PLAIN)

    assert [row.kind for row in rows] == ["missing_in_db", "missing_on_chain"]


def test_positions_of_one_address_in_two_spellings_are_one() -> None:
    side = {("0xAB", "yes"): 1, ("0xab", "yes"): 2, ("0xab", "no"): 4}

    assert with_addresses(side, str.lower) == {("0xab", "yes"): 3, ("0xab", "no"): 4}


@pytest.mark.parametrize(
    ("difference", "thresholds", "severity"),
    [
        (0, PLAIN, "none"),
        (1, PLAIN, "warning"),  # of 10000: 1 bp
        (99, PLAIN, "warning"),
        (100, PLAIN, "critical"),  # 100 bp
        (5, DriftThresholds(tolerance=5, critical_bp=1), "tolerated"),
        (6, DriftThresholds(tolerance=5, critical_bp=1), "critical"),
    ],
)
def test_severity_follows_the_difference(difference: int, thresholds: DriftThresholds, severity: str) -> None:
    rows, totals = compare({("a", "yes"): 10_000}, {("a", "yes"): 10_000 - difference}, thresholds)

    assert rows[0].severity == totals.severity == severity


def test_missing_dust_beside_a_large_market_is_no_catastrophe() -> None:
    rows, totals = compare({("a", "yes"): 10**9, ("b", "yes"): 1}, {("a", "yes"): 10**9}, PLAIN)

    assert (rows[1].kind, rows[1].severity, totals.severity) == ("missing_on_chain", "warning", "warning")


def test_many_small_differences_add_up() -> None:
    db = {(str(number), "yes"): 100 for number in range(100)}
    chain = dict.fromkeys(db, 99)

    rows, totals = compare(db, chain, PLAIN)

    assert {row.severity for row in rows} == {"warning"}
    assert totals.severity == "critical"


@given(sides, sides)
def test_the_rows_are_the_union_of_both_sides_and_add_up(db: dict, chain: dict) -> None:  # type: ignore[type-arg]  # as generated
    rows, totals = compare(db, chain, PLAIN)

    assert {(row.address, row.outcome) for row in rows} == db.keys() | chain.keys()
    assert totals.matches + totals.mismatches + totals.missing_on_chain + totals.missing_in_db == totals.keys
    assert sum(row.db_amount - (row.chain_amount or 0) for row in rows) == totals.db_total - totals.chain_total
    assert abs(totals.db_total - totals.chain_total) <= totals.drift == sum(map(_drift, rows))


@given(sides)
def test_a_side_equals_itself(side: dict) -> None:  # type: ignore[type-arg]  # as generated
    rows, totals = compare(side, dict(side), PLAIN)

    assert {row.kind for row in rows} <= {"match"}
    assert (totals.drift, totals.drift_bp, totals.severity) == (0, 0, "none")


def test_totals_add_up_and_keep_the_worst_severity() -> None:
    both = PositionTotals(keys=1, drift=2, severity="warning") + PositionTotals(keys=3, drift=5, severity="none")

    assert (both.keys, both.drift, both.severity) == (4, 7, "warning")


def _drift(row: ComparedPosition) -> int:
    return abs(row.db_amount - (row.chain_amount or 0))
