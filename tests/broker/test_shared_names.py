"""Event kinds and the fields of a put are written once, in Python; the Lua scripts use them by name."""

import re

from taskyard.broker.scripts.runner import FOLDER
from taskyard.broker.scripts.shared_names import EVENT_KINDS, PutFields, lua_names
from taskyard.history.events import KINDS

SCRIPTS = {path.name: path.read_text() for path in FOLDER.glob("*.lua")}


def used(table: str) -> set[str]:
    """The names that the scripts read from a shared table."""
    return {name for text in SCRIPTS.values() for name in re.findall(rf"\b{table}\.(\w+)", text)}


def test_the_scripts_name_no_kind_of_event_themselves() -> None:
    assert [name for name, text in SCRIPTS.items() if re.search(r"\bevent\(\s*['\"]", text)] == []
    assert used("EVENT") <= set(EVENT_KINDS)


def test_put_reads_every_field_by_its_name() -> None:
    assert used("PUT") == {*PutFields._fields, "count"}
    assert f"count = {len(PutFields._fields)}" in lua_names()


def test_history_knows_every_kind_of_event() -> None:
    assert set(EVENT_KINDS) <= KINDS
