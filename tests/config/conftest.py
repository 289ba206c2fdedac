"""Databases for the tests of this folder."""

from tests.databases import servers

__all__ = ["servers"]
