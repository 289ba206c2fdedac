"""Profiles: which kind of worker process serves which queues, with how many processes and slots."""

from dataclasses import dataclass
from typing import Literal

from taskyard.settings.platform import Settings
from taskyard.settings.queues import QUEUES

type Pool = Literal["asyncio", "prefork", "threads"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of worker process; a queue names its profile."""

    name: str
    pool: Pool

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues it serves."""
        return tuple(queue.name for queue in QUEUES if queue.profile == self.name)

    def workers(self, settings: Settings) -> int:
        """How many Celery workers; one of prefork brings its own processes."""
        return 1 if self.pool == "prefork" else settings.worker_count

    def slots(self, settings: Settings) -> int:
        """Tasks that one worker runs at the same time; those of prefork are processes with one slot each."""
        return settings.worker_count if self.pool == "prefork" else settings.worker_queue_concurrency


IO = Profile("io", pool="threads")
PREFORK = Profile("prefork", pool="prefork")

PROFILES: tuple[Profile, ...] = (IO, PREFORK)
