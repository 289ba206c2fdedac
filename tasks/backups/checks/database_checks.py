"""Check a restored database against its profile and the last good run."""

from datetime import UTC, date, datetime, time, timedelta

from tasks.backups.checks.database_inspector import ColumnValue, DatabaseInspector, QueryError
from tasks.backups.checks.verification_report import BackupFacts, VerificationReport
from tasks.backups.profile.schema import Assertion, BackupProfile, TableRules

MOST_NAMES = 5  # in a detail
LONGEST_VALUE = 100  # characters of an assertion's answer
CLOCK_TOLERANCE = timedelta(minutes=10)  # a row may be so far in the future


def check_database(
    profile: BackupProfile, inspector: DatabaseInspector, last_good: BackupFacts | None, report: VerificationReport
) -> None:
    """
    Run every check of the profile; a query that fails is a failed check, and the next one follows.

    Args:
        profile: What is expected.
        inspector: The restored database.
        last_good: The facts of the last good run; None: there is none, or it is not to be compared with.
        report: Collects the checks and this run's facts.
    """
    try:
        report.facts.tables = inspector.tables()
    except QueryError as error:
        report.add("tables", f"cannot be listed: {error}", passed=False)
        return
    _check_presence(profile, inspector, last_good, report)
    for rules in _rules(profile, inspector, report.facts.tables):
        _check_table(rules, inspector, last_good, report)
    if profile.every_table is not None:
        total = sum(report.facts.rows.values())
        report.add("rows", f"{total} in {len(report.facts.rows)} tables", passed=total > 0)
    _check_revision(profile, inspector, report)
    _check_schema(profile, inspector, last_good, report)
    for assertion in profile.assertions:
        _check_assertion(assertion, inspector, report)


def _check_presence(
    profile: BackupProfile, inspector: DatabaseInspector, last_good: BackupFacts | None, report: VerificationReport
) -> None:
    expected = {inspector.full_name(rules.name) for rules in profile.tables}
    found = set(report.facts.tables)
    missing = sorted(expected - found)
    report.add("tables", f"missing: {_some(missing)}" if missing else f"{len(found)} found", passed=not missing)
    if last_good is not None:
        gone = sorted(set(last_good.tables) - found - expected)
        detail = f"gone since the last good run: {_some(gone)}" if gone else "none is gone since the last good run"
        if gone or profile.every_table is not None:
            report.add("tables since last", detail, passed=not gone)


def _rules(profile: BackupProfile, inspector: DatabaseInspector, found: list[str]) -> list[TableRules]:
    """Return the rules of each table that is there; a missing one has failed already."""
    own = {inspector.full_name(rules.name): rules for rules in profile.tables}
    rest = profile.every_table
    if rest is not None:
        for name in found:
            own.setdefault(name, TableRules(name=name, min_rows=rest.min_rows, min_ratio=rest.min_ratio))
    return [own[name].model_copy(update={"name": name}) for name in sorted(own.keys() & set(found))]


def _check_table(
    rules: TableRules, inspector: DatabaseInspector, last_good: BackupFacts | None, report: VerificationReport
) -> None:
    name = f"rows {rules.name}"
    try:
        rows = inspector.count(rules.name)
    except QueryError as error:
        report.add(name, f"cannot be counted: {error}", passed=False)
        return
    report.facts.rows[rules.name] = rows
    before = last_good.rows.get(rules.name) if last_good else None
    fault = _fault_of_count(rows, rules, before)
    report.add(name, fault or f"{rows}", passed=fault is None)
    if rules.newest is not None and rules.max_age is not None:
        _check_freshness(rules.name, rules.newest, rules.max_age, inspector, report)


def _fault_of_count(rows: int, rules: TableRules, before: int | None) -> str | None:
    if rows < rules.min_rows:
        return f"{rows}, at least {rules.min_rows} expected"
    if rules.max_rows is not None and rows > rules.max_rows:
        return f"{rows}, at most {rules.max_rows} expected"
    if before and rows < rules.min_ratio * before:
        return f"{rows}, {1 - rows / before:.0%} fewer than the {before} of the last good run"
    return None


def _check_freshness(
    table: str, column: str, max_age: timedelta, inspector: DatabaseInspector, report: VerificationReport
) -> None:
    name = f"newest {table}.{column}"
    try:
        value = inspector.newest(table, column)
        moment = _moment(value)
    except (QueryError, ValueError, OverflowError) as error:
        report.add(name, str(error), passed=False)
        return
    if moment is None:
        report.add(name, "there is no row", passed=False)
        return
    age = datetime.now(UTC) - moment
    if age < -CLOCK_TOLERANCE:
        report.add(name, f"{moment:%Y-%m-%d %H:%M} UTC lies in the future", passed=False)
        return
    report.add(name, f"{_shown(age)} old, at most {_shown(max_age)}", passed=age <= max_age)


def _moment(value: ColumnValue) -> datetime | None:
    """
    Read a column's value as a moment: a time, a date, ISO 8601 text or seconds since 1970; without a zone in UTC.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = datetime.fromtimestamp(value, UTC)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.max)  # the end of that day, or now
        value = min(value.replace(tzinfo=UTC), datetime.now(UTC))
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ValueError(f"holds {type(value).__name__}, not a time")  # noqa: TRY004 - the caller reads one class
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _check_revision(profile: BackupProfile, inspector: DatabaseInspector, report: VerificationReport) -> None:
    if profile.revision is None:
        return
    rules = profile.revision
    try:
        found = inspector.revision(rules.table, rules.column)
    except QueryError as error:
        report.add("revision", f"cannot be read: {error}", passed=False)
        return
    report.facts.revision = ", ".join(found)
    passed = len(found) > 0 and set(found) <= set(rules.expected)
    report.add("revision", f"{_some(found) or 'none'}, expected {' or '.join(rules.expected)}", passed=passed)


def _check_schema(
    profile: BackupProfile, inspector: DatabaseInspector, last_good: BackupFacts | None, report: VerificationReport
) -> None:
    rules, facts = profile.db_schema, report.facts
    try:
        facts.constraints, facts.indexes = inspector.constraints(), inspector.indexes()
    except QueryError as error:
        report.add("schema", f"cannot be read: {error}", passed=False)
        return
    comparable = last_good if rules.same_as_last_good and last_good and last_good.revision == facts.revision else None
    before = comparable or BackupFacts()
    _check_names("constraints", facts.constraints, rules.constraints, before.constraints, report)
    _check_names("indexes", facts.indexes, rules.indexes, before.indexes, report)
    for what, found, least in (
        ("constraints", facts.constraints, rules.min_constraints),
        ("indexes", facts.indexes, rules.min_indexes),
    ):
        if least:
            report.add(f"number of {what}", f"{len(found)}, at least {least} expected", passed=len(found) >= least)


def _check_names(what: str, found: list[str], named: list[str], before: list[str], report: VerificationReport) -> None:
    """A name in the profile may leave the schema out: ``orders.orders_pkey`` is ``public.orders.orders_pkey``."""
    endings = {full for name in found for full in (name, name.partition(".")[2])}
    missing = sorted({name for name in named if name not in endings} | (set(before) - set(found)))
    report.add(what, f"missing: {_some(missing)}" if missing else f"{len(found)} found", passed=not missing)


def _check_assertion(assertion: Assertion, inspector: DatabaseInspector, report: VerificationReport) -> None:
    name = f"assertion {assertion.name}"
    try:
        answer = inspector.scalar(assertion.sql)
    except QueryError as error:
        report.add(name, str(error), passed=False)
        return
    passed = answer == assertion.expected or str(answer) == str(assertion.expected)
    shown = str(answer)[:LONGEST_VALUE]
    report.add(name, shown if passed else f"{shown}, expected {assertion.expected}", passed=passed)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _shown(age: timedelta) -> str:
    return str(timedelta(seconds=round(age.total_seconds())))
