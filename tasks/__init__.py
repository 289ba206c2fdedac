"""The work: typed tasks, their outcomes, and one folder per domain."""

from tasks.app import app

__all__ = ["app"]
