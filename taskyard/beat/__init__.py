"""The scheduler, and how code and operators define schedules."""

from taskyard.beat.entries import Entry, When, cron, every

__all__ = ["Entry", "When", "cron", "every"]
