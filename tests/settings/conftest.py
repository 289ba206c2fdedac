"""Databases for the tests of this folder."""

from tests.databases import database_servers

__all__ = ["database_servers"]
