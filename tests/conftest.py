"""Loads the fixtures of all folders; those of one folder are in the folder's conftest."""

import pytest

pytest_plugins = ("tests.fixtures.servers", "tests.fixtures.databases", "tests.fixtures.applications")

USUAL_LIMIT = 120  # seconds; --timeout in pyproject.toml


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what has more than the usual time: a test cannot become slow without saying so."""
    for item in items:
        limit = item.get_closest_marker("timeout")
        if limit is not None and limit.args[0] > USUAL_LIMIT:
            item.add_marker("slow")
