"""Databases for the tests of this folder, and the platform's app on a test's own servers."""

from tests.databases import database, database_servers, empty_database
from tests.history.conftest import app_database

__all__ = ["app_database", "database", "database_servers", "empty_database"]
