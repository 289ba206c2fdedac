"""Compare two sides of a market, position by position; pure arithmetic on whole smallest units."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

type PositionKey = tuple[str, str]  # address, outcome
type Positions = Mapping[PositionKey, int]
type DifferenceKind = Literal["match", "mismatch", "missing_on_chain", "missing_in_db"]
type Severity = Literal["none", "tolerated", "warning", "critical"]

SEVERITIES: tuple[Severity, ...] = ("none", "tolerated", "warning", "critical")
ALERTING: tuple[Severity, ...] = ("warning", "critical")
FULL = 10_000  # basis points


class ComparedPosition(NamedTuple):
    """One position; amounts in smallest units."""

    address: str
    outcome: str
    kind: DifferenceKind
    db_amount: int  # 0 when it is missing there
    chain_amount: int | None  # None when it is missing there
    difference: int | None  # database - chain; None unless both have it
    severity: Severity

    @property
    def drift(self) -> int:
        """Absolute difference of the two sides; a missing position counts in full."""
        return abs(self.db_amount - (self.chain_amount or 0))


@dataclass(frozen=True, slots=True)
class DriftThresholds:
    """How large a difference must be to matter."""

    tolerance: int  # smallest units by which one position may differ
    critical_bp: int  # of the larger side's total, in 1/10000

    def severity(self, drift: int, total: int) -> Severity:
        """Rate a drift against the larger side's total."""
        if drift == 0:
            return "none"
        if drift <= self.tolerance:
            return "tolerated"
        return "critical" if drift * FULL >= self.critical_bp * total else "warning"


@dataclass(frozen=True, slots=True)
class PositionTotals:
    """The sums over many positions; amounts in smallest units."""

    keys: int = 0
    matches: int = 0
    mismatches: int = 0
    missing_on_chain: int = 0
    missing_in_db: int = 0
    db_total: int = 0
    chain_total: int = 0
    drift: int = 0  # sum of all differences, regardless of their sign
    severity: Severity = "none"

    @property
    def drift_bp(self) -> int:
        """The drift as a share of the larger side, in 1/10000, rounded down."""
        larger = max(self.db_total, self.chain_total)
        return self.drift * FULL // larger if larger else 0

    def __add__(self, other: "PositionTotals") -> "PositionTotals":
        return PositionTotals(
            keys=self.keys + other.keys,
            matches=self.matches + other.matches,
            mismatches=self.mismatches + other.mismatches,
            missing_on_chain=self.missing_on_chain + other.missing_on_chain,
            missing_in_db=self.missing_in_db + other.missing_in_db,
            db_total=self.db_total + other.db_total,
            chain_total=self.chain_total + other.chain_total,
            drift=self.drift + other.drift,
            severity=worst((self.severity, other.severity)),
        )


def compare(
    db: Positions, chain: Positions, thresholds: DriftThresholds
) -> tuple[list[ComparedPosition], PositionTotals]:
    """
    Compare over the union of keys; rows come sorted by address and outcome.

    A row's severity is measured against the market's larger total, so dust that is missing altogether stays small.

    >>> rows, totals = compare({("a", "yes"): 7}, {("a", "yes"): 5}, Thresholds(tolerance=0, critical_bp=100))
    >>> rows[0].kind, rows[0].difference, totals.drift_bp, totals.severity
    ('mismatch', 2, 2857, 'critical')
    """
    larger = max(sum(db.values()), sum(chain.values()))
    rows = [_row(key, db.get(key), chain.get(key), thresholds, larger) for key in sorted(db.keys() | chain.keys())]
    kinds = [row.kind for row in rows]
    untolerated = sum(row.drift for row in rows if row.severity in ALERTING)
    floor = worst(row.severity for row in rows)
    totals = PositionTotals(
        keys=len(rows),
        matches=kinds.count("match"),
        mismatches=kinds.count("mismatch"),
        missing_on_chain=kinds.count("missing_on_chain"),
        missing_in_db=kinds.count("missing_in_db"),
        db_total=sum(db.values()),
        chain_total=sum(chain.values()),
        drift=sum(row.drift for row in rows),
        severity=worst((floor, thresholds.severity(untolerated, larger))) if untolerated else floor,
    )
    return rows, totals


def with_addresses(side: Positions, normal: Callable[[str], str]) -> dict[PositionKey, int]:
    """Normalize all addresses, and sum positions that then share a key."""
    sums: dict[PositionKey, int] = {}
    for (address, outcome), amount in side.items():
        key = (normal(address), outcome)
        sums[key] = sums.get(key, 0) + amount
    return sums


def worst(severities: Iterable[Severity]) -> Severity:
    """Return the most severe one; ``none`` for an empty iterable."""
    return max(severities, key=SEVERITIES.index, default="none")


def _row(
    key: PositionKey, db: int | None, chain: int | None, thresholds: DriftThresholds, larger: int
) -> ComparedPosition:
    address, outcome = key
    severity = thresholds.severity(abs((db or 0) - (chain or 0)), larger)
    if db is None:
        return ComparedPosition(address, outcome, "missing_in_db", 0, chain, None, severity)
    if chain is None:
        return ComparedPosition(address, outcome, "missing_on_chain", db, None, None, severity)
    return ComparedPosition(address, outcome, "match" if db == chain else "mismatch", db, chain, db - chain, severity)
