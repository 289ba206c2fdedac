"""The manifest of the application's own audit: a table, and no task."""

from pathlib import Path

from taskyard import Domain, Tables

AUDIT_DOMAIN = Domain("audit", tables=Tables("audit.models", Path(__file__).parent / "migrations"))
