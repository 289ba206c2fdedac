"""Projects with a database each, on one broker."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.identity.project import Project
from tests.servers import Server

type MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(valkey: Server, tmp_path: Path) -> Iterator[MakeProject]:
    """Makes a project by its name, with a migrated database; ends what it started."""
    with ExitStack() as ends:
        yield lambda name, more="": ends.enter_context(Project(name, tmp_path / name, valkey, more))
