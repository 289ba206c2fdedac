"""Notices of a run: the events `backup.passed`, `.failed`, `.error`, and a Slack message."""

from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from config.settings import BackupSettings
from tasks.backups.checks.verification_report import FinishedVerification
from tasks.backups.errors import BackupConfigError
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.store import AnnounceRun
from taskyard import EmitEvent
from taskyard.settings import Settings
from taskyard.webhooks.operators.direct_notices import Notice, check_receiver, post_notice

SLACK_PURPOSE = "Slack notices of backup verification (BACKUP_SLACK_WEBHOOK_URL)"
MOST_FAILURES = 20  # in one notice
LONGEST_TEXT = 2900  # characters; a section takes 3000. Source: Slack's reference of Block Kit
_TITLES = {"passed": "PASSED", "failed": "FAILED", "error": "NOT POSSIBLE"}

log = structlog.stdlib.get_logger(__name__)


def make_announcer(
    settings: BackupSettings, platform: Settings, profiles: Mapping[str, BackupProfile], emit: EmitEvent
) -> AnnounceRun:
    """
    Return the function that writes a run's notices into the transaction that ends the run.

    A faulty notice is logged and rolled back to a savepoint; the result stands. All failed executions of one task share
    one notice.
    """
    slack = settings.backup_slack_webhook_url

    def announce(session: Session, finished: FinishedVerification) -> None:
        profile = profiles.get(finished.target)
        if profile is not None and profile.notify == "failures" and finished.state == "passed":
            return
        key = f"backup:{finished.target}:{finished.state}:"
        key += finished.holder if finished.state == "error" else finished.run_id
        try:
            with session.begin_nested():
                emit(session, f"backup.{finished.state}", event_data(finished), key)
        except (ValueError, SQLAlchemyError) as error:
            log.warning("backup.event_not_emitted", run_id=finished.run_id, error=str(error))
        if slack is None:
            return
        try:
            with session.begin_nested():
                notice = Notice(slack.get_secret_value(), slack_body(finished), SLACK_PURPOSE, f"{key}:slack")
                post_notice(session, platform, notice)
        except (ValueError, SQLAlchemyError) as error:
            log.warning("backup.notice_not_written", run_id=finished.run_id, error=str(error))

    return announce


def check_notices(settings: BackupSettings, platform: Settings) -> None:
    """
    Check that a notice could be posted; a fault found later is only logged.

    Raises:
        BackupConfigError: The URL may not be called, or there is no key for the secret of its endpoint.
    """
    slack = settings.backup_slack_webhook_url
    if slack is None:
        return
    try:
        check_receiver(platform, slack.get_secret_value())
    except ValueError as error:
        raise BackupConfigError(f"BACKUP_SLACK_WEBHOOK_URL: {error}") from None


def event_data(finished: FinishedVerification) -> dict[str, Any]:
    """Return the event's data: the dump, the result, and the checks that failed."""
    report = finished.report
    return {
        "target": finished.target,
        "run_id": finished.run_id,
        "state": finished.state,
        "reason": report.reason,
        "dump": report.dump,
        "dump_taken_at": report.dump_taken_at,
        "dump_bytes": report.dump_bytes,
        "dump_sha256": report.dump_sha256,
        "started_at": finished.started_at,
        "finished_at": finished.finished_at,
        "checks": len(report.checks),
        "failed_checks": [check.model_dump() for check in report.failures[:MOST_FAILURES]],
    }


def slack_body(finished: FinishedVerification) -> dict[str, Any]:
    """
    Return the message in Slack's format: a text for notifications, and blocks.

    Source: Slack, "Incoming webhooks" and "Block Kit".
    """
    report = finished.report
    title = f"Backup verification {_TITLES[finished.state]}: {finished.target}"
    passed = len(report.checks) - len(report.failures)
    seconds = (finished.finished_at - finished.started_at).total_seconds()
    facts = {
        "Run": finished.run_id,
        "Dump": report.dump or "none",
        "Checks passed": f"{passed} of {len(report.checks)}",
        "Duration": f"{seconds:.1f} s",
        "Finished": f"{finished.finished_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    fields = [{"type": "mrkdwn", "text": f"*{name}*\n{_escaped(value)}"} for name, value in facts.items()]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title}},
        {"type": "section", "fields": fields},
    ]
    lines = [f"- {check.name}: {check.detail}" for check in report.failures[:MOST_FAILURES]]
    if report.error is not None:
        lines.insert(0, report.error)
    if lines:
        text = _escaped("\n".join(lines))[:LONGEST_TEXT]
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    return {"text": title, "blocks": blocks}


def _escaped(text: str) -> str:
    """Escape the three characters that Slack reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
