"""The history: pages without gaps, figures for monitors, the same on both databases."""

from datetime import timedelta
from uuid import uuid4

from tasks.backups.checks.verification_report import MOST_CHECKS_KEPT, VerificationReport
from tasks.backups.metrics import as_prometheus, figures
from tasks.backups.models import BackupRun
from tasks.backups.queries import BackupFilter, find_backup, list_backups, newest_of_each
from taskyard.database.columns import utc_now
from tests.databases import Database


def add_runs(database: Database, *states: str, target: str = "shop") -> list[BackupRun]:
    """Add runs, one an hour, the last one now."""
    now = utc_now()
    rows = [
        BackupRun(
            target=target,
            state=state,
            holder="me",
            worker="w",
            started_at=now - timedelta(hours=len(states) - number - 1),
            duration_ms=1500,
            dump_bytes=5_000_000_000,
        )
        for number, state in enumerate(states)
    ]
    with database.session() as session, session.begin():
        session.add_all(rows)
    return rows


def test_pages_follow_each_other_without_gap_or_repetition(database: Database) -> None:
    rows = add_runs(database, *["passed"] * 7)
    seen, after = [], None
    with database.session() as session:
        while True:
            page = list_backups(session, BackupFilter(target="shop"), limit=3, after=after)
            seen += [row.id for row in page.rows]
            after = page.after
            if after is None:
                break
    assert seen == [row.id for row in reversed(rows)]


def test_filters_choose_by_target_state_and_time(database: Database) -> None:
    rows = add_runs(database, "passed", "failed", "passed")
    add_runs(database, "failed", target="other")
    with database.session() as session:

        def found(**wanted: object) -> list[object]:
            return [row.id for row in list_backups(session, BackupFilter(**wanted)).rows]  # type: ignore[arg-type]  # a test's short form

        assert found(target="shop", state="failed") == [rows[1].id]
        assert found(target="shop", since=utc_now() - timedelta(minutes=90)) == [rows[2].id, rows[1].id]
        assert found(target="shop", until=utc_now() - timedelta(minutes=90)) == [rows[0].id]
        assert find_backup(session, rows[0].id) is not None
        assert find_backup(session, uuid4()) is None


def test_figures_tell_the_newest_run_that_is_over_and_the_last_good_one(database: Database) -> None:
    rows = add_runs(database, "passed", "failed", "running")
    with database.session() as session:
        assert {target: row.id for target, row in newest_of_each(session).items()} == {"shop": rows[1].id}
        text = as_prometheus(figures(session))
    assert 'taskyard_backup_passed{target="shop"} 0.0\n' in text
    assert f'taskyard_backup_last_good_seconds{{target="shop"}} {rows[0].started_at.timestamp()!r}\n' in text
    assert 'taskyard_backup_dump_bytes{target="shop"} 5000000000.0\n' in text
    assert text.count("# TYPE taskyard_backup_passed gauge") == 1


def test_a_report_with_no_check_has_not_passed() -> None:
    assert VerificationReport().state == "failed"


def test_of_too_many_checks_the_failed_ones_are_kept() -> None:
    report = VerificationReport()
    for number in range(MOST_CHECKS_KEPT * 2):
        report.add(f"rows t{number}", "x" * 50, passed=number % 2 == 0)
    kept = report.kept_checks()
    assert len(kept) == MOST_CHECKS_KEPT
    assert not any(check["passed"] for check in kept)
    assert len(report.reason or "") == 2000
