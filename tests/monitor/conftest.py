"""Databases for the tests of this folder, and the platform's app on a test's own servers."""

from tests.audit.conftest import platform
from tests.databases import database, empty_database, servers

__all__ = ["database", "empty_database", "platform", "servers"]
