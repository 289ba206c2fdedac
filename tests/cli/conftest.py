"""Databases for the tests of this folder."""

from tests.databases import database, empty_database, servers

__all__ = ["database", "empty_database", "servers"]
