"""The work: typed tasks, their outcomes, and one folder per domain."""

from taskyard.tasks.app import app

__all__ = ["app"]
