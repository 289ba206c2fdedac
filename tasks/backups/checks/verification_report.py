"""The result of a verification: its checks, and the facts that the next run is compared with."""

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel

LONGEST_REASON = 2000  # characters
MOST_CHECKS_KEPT = 500  # in a history row; failed ones are kept first


class BackupCheck(BaseModel):
    """One check and its result; the detail holds counts and names, never rows."""

    name: str  # such as "checksum" or "rows public.users"
    passed: bool
    detail: str


class BackupFacts(BaseModel):
    """What the next run is compared with."""

    rows: dict[str, int] = {}  # of each table that was counted
    tables: list[str] = []  # all of them, counted or not
    constraints: list[str] = []
    indexes: list[str] = []
    revision: str | None = None


@dataclass(slots=True)
class VerificationReport:
    """The growing result of one run."""

    dump: str | None = None
    dump_format: str | None = None
    dump_taken_at: datetime | None = None
    dump_bytes: int | None = None
    dump_sha256: str | None = None
    restore_ms: int | None = None
    checks: list[BackupCheck] = field(default_factory=list)
    facts: BackupFacts = field(default_factory=BackupFacts)
    error: str | None = None  # why the verification itself could not be made

    def add(self, name: str, detail: str, *, passed: bool) -> bool:
        """Add a check; return whether it passed."""
        self.checks.append(BackupCheck(name=name, passed=passed, detail=detail))
        return passed

    @property
    def state(self) -> str:
        """Passed only if something was checked and nothing failed."""
        if self.error is not None:
            return "error"
        return "passed" if self.checks and all(check.passed for check in self.checks) else "failed"

    @property
    def failures(self) -> list[BackupCheck]:
        """The checks that failed."""
        return [check for check in self.checks if not check.passed]

    @property
    def reason(self) -> str | None:
        """Why it is not passed, in one bounded line; None when it is."""
        parts = [f"{check.name}: {check.detail}" for check in self.failures]
        text = "; ".join([self.error] if self.error is not None else parts)
        return text[:LONGEST_REASON] or None

    def kept_checks(self) -> list[dict[str, object]]:
        """Return the checks for the history row, failed ones first when there are too many."""
        checks = self.checks
        if len(checks) > MOST_CHECKS_KEPT:
            checks = sorted(checks, key=lambda check: check.passed)[:MOST_CHECKS_KEPT]
        return [check.model_dump() for check in checks]


@dataclass(frozen=True, slots=True)
class FinishedVerification:
    """A run that is over, as listings and notices show it."""

    run_id: str
    target: str
    state: str  # passed, failed or error
    report: VerificationReport
    started_at: datetime
    finished_at: datetime
    holder: str
