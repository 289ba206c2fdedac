"""`celery -A tasks webhooks ...` on a database of a test, as a call or as a process, and rows for it to work on."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import update
from sqlmodel import Session, col

from taskyard.settings.loading import load_settings, setting_prefixes
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.models import Delivery, DeliveryAttempt, Endpoint
from taskyard.webhooks.signing.key_vault import new_master_key
from tests.app_broker import forget_settings
from tests.commands import command_of
from tests.databases import Database
from tests.fixtures.celery_command import CommandResult

LIMIT = 60  # seconds of one command on a busy machine
NO_BROKER = "redis://127.0.0.1:1/0"
IN_BODY = "marker-of-the-body"
IN_ANSWER = "marker-of-the-answer"


@dataclass(slots=True)
class WebhooksCommand:
    """Runs commands in a folder of the test, with these settings and no others."""

    database: Database
    folder: Path
    redis_url: str = NO_BROKER
    more: Mapping[str, str] = field(default_factory=dict)
    key: str = field(default_factory=lambda: new_master_key("test").reveal(), repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The settings as variables."""
        return {
            "DATABASE_URL": self.database.url,
            "REDIS_URL": self.redis_url,
            "WEBHOOK_SECRET_KEYS": self.key,
            "WEBHOOK_ALLOW_HTTP": "true",
            "WEBHOOK_ALLOW_NETS": "127.0.0.0/8",
            **self.more,
        }

    @property
    def settings(self) -> Settings:
        """The same settings for this process."""
        return load_settings(self.environment)

    def run(self, *arguments: str, stdin: str = "") -> CommandResult:
        """Run the command in this process, for what needs no broker: a hundred times faster than a process."""
        with pytest.MonkeyPatch.context() as patch, _own_engine():
            patch.chdir(self.folder)
            for name in [name for name in os.environ if name.startswith(setting_prefixes())]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            ended = CliRunner().invoke(command_of("webhooks"), arguments, input=stdin)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return CommandResult(ended.exit_code, ended.stdout, ended.stderr)

    def process(self, *arguments: str) -> CommandResult:
        """Run `celery -A tasks webhooks` with these words as a process."""
        ended = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tasks", "webhooks", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "LOGNAME": "operator", **self.environment},
            cwd=self.folder,
            timeout=LIMIT,
            check=False,
        )
        return CommandResult(ended.returncode, ended.stdout, ended.stderr)

    def endpoint(self, url: str = "https://example.com/hook", *patterns: str) -> UUID:
        """Register an endpoint, for all events unless patterns are given."""
        with self.database.session() as session, session.begin():
            return endpoints.register(session, self.settings, url, patterns or ("*",))[0].id

    def deliveries(self, count: int, event_type: str = "market.resolved") -> list[UUID]:
        """Emit events, each with the body's marker; return the ids of all their deliveries."""
        with self.database.session() as session, session.begin():
            added = [add_event(session, self.settings, event_type, {"note": IN_BODY, "n": n}) for n in range(count)]
            return [row.delivery_id for each in added for row in each.due]

    def exhaust(self, *delivery_ids: UUID) -> None:
        """Make deliveries look as if their only attempt failed, with the answer's marker in it."""
        with self.database.session() as session, session.begin():
            facts = {"state": "exhausted", "attempts": 1, "failures": 6, "next_attempt_at": None, "last_status": 500}
            session.execute(update(Delivery).where(col(Delivery.id).in_(delivery_ids)).values(**facts))
            session.add_all(
                DeliveryAttempt(delivery_id=each, number=1, status=500, total_ms=12, excerpt=IN_ANSWER)
                for each in delivery_ids
            )

    def states(self, *delivery_ids: UUID) -> list[str]:
        """The states of deliveries, in order."""
        with self.database.session() as session:
            return [_found(session, each).state for each in delivery_ids]

    def stored(self, endpoint_id: UUID) -> Endpoint:
        """The endpoint's row."""
        with self.database.session() as session:
            return endpoints.find(session, endpoint_id)


@contextmanager
def _own_engine() -> Iterator[None]:
    """Read settings and open the database anew, and leave neither behind."""
    forget_settings()
    try:
        yield
    finally:
        forget_settings()


def _found(session: Session, delivery_id: UUID) -> Delivery:
    delivery = session.get(Delivery, delivery_id)
    assert delivery is not None
    return delivery
