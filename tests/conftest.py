"""Loads the fixtures of all folders; those of one folder are in the folder's conftest."""

pytest_plugins = ("tests.fixtures.servers", "tests.fixtures.databases", "tests.fixtures.applications")
