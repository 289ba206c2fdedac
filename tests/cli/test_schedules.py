"""`celery -A tasks schedules`: what an operator sees, may do, and is refused."""

import json
from typing import Any

import pytest
import redis
from sqlmodel import select

from taskyard.beat.models import Schedule, ScheduleFire
from taskyard.database.engine import open_session
from taskyard.history.operator_log import Operation
from taskyard.history.writer.event_writer import EventWriter
from tests.beat.app import mark
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.servers import Server

WEEKDAYS = ("--cron", "0 8 * * 1-5", "--zone", "Europe/Rome")
TASK = ("--task", mark.name, "--args", '{"label": "x"}')


def saved(model: type[Any] = Schedule) -> list[Any]:
    with open_session() as session:
        return list(session.exec(select(model)).all())


def test_a_schedule_is_added_listed_shown_changed_and_removed(command: Command) -> None:
    added = command("schedules", "add", "report", *TASK, *WEEKDAYS, "--yes", "--reason", "asked for")
    assert added.exit_code == 0, added.output
    assert added.output.count("08:00:00") == 5, "five slots in the schedule's zone"
    listed = command("schedules", "ls").output
    assert "weekdays 08:00 Europe/Rome" in listed
    shown = json.loads(command("schedules", "show", "report", "--json").output)
    assert (shown["owner"], shown["state"], len(shown["next"])) == ("operator", "active", 5)
    assert command("schedules", "edit", "report", "--every", "5m", "--yes").exit_code == 0
    assert command("schedules", "pause", "report", "--reason", "holiday").exit_code == 0
    assert command("schedules", "pause", "report").exit_code == 1
    [row] = json.loads(command("schedules", "ls", "--state", "paused", "--json").output)["items"]
    assert (row["when"], row["pause_reason"]) == ("every 5 min", "holiday")
    assert command("schedules", "resume", "report").exit_code == 0
    assert command("schedules", "rm", "report", "--dry-run").exit_code == 0
    assert len(saved()) == 1
    assert command("schedules", "rm", "report", "--yes", "--reason", "over").exit_code == 0
    assert saved() == []
    logged = sorted(saved(Operation), key=lambda row: row.at)
    assert [row.verb.removeprefix("schedules ") for row in logged] == ["add", "edit", "pause", "resume", "rm"]
    assert logged[0].reason == "asked for"
    assert all(row.who and row.target == "report" for row in logged)


def test_a_run_by_hand_has_its_own_slot_and_is_in_the_broker(command: Command) -> None:
    command("schedules", "add", "report", *TASK, *WEEKDAYS, "--yes")
    first = json.loads(command("schedules", "run", "report", "--json").output)
    second = json.loads(command("schedules", "run", "report", "--json").output)
    assert first["run_id"] != second["run_id"]
    fires = {str(fire.id): fire for fire in saved(ScheduleFire)}
    assert {fire.state for fire in fires.values()} == {"published"}
    assert all(fire.is_manual for fire in fires.values())
    assert saved()[0].fired == 2
    shown = json.loads(command("schedules", "show", "report", "--json").output)
    assert [fire["id"] for fire in shown["fires"]] == [second["run_id"], first["run_id"]]


def test_the_record_of_a_run_names_its_schedule_and_slot(command: Command, valkey: Server, database: Database) -> None:
    command("schedules", "add", "report", *TASK, *WEEKDAYS, "--yes")
    run = json.loads(command("schedules", "run", "report", "--json").output)
    with redis.Redis.from_url(valkey.url) as client:
        EventWriter(client, database.engine, "taskyard:").drain()
    shown = json.loads(command("jobs", "show", run["run_id"], "--json").output)
    assert (shown["schedule"], shown["slot"], shown["is_manual"]) == ("report", run["slot"], True)
    assert "schedule" in command("jobs", "show", run["run_id"]).output
    other = mark.delay(label="x")
    with redis.Redis.from_url(valkey.url) as client:
        EventWriter(client, database.engine, "taskyard:").drain()
    assert "slot" not in json.loads(command("jobs", "show", other.id, "--json").output)


def test_a_run_by_hand_does_not_overlap_unless_forced(command: Command) -> None:
    command("schedules", "add", "report", *TASK, *WEEKDAYS, "--overlap", "skip", "--yes")
    assert command("schedules", "run", "report").exit_code == 0
    refused = command("schedules", "run", "report")
    assert refused.exit_code == 1
    assert "must not overlap" in refused.stderr
    assert command("schedules", "run", "report", "--force").exit_code == 0
    assert len(saved(ScheduleFire)) == 2


def test_a_preview_shows_slots_and_saves_nothing(command: Command) -> None:
    words = ("--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--from", "2026-10-23T12:00", "--json")
    assert json.loads(command("schedules", "preview", *words).output)["slots"][:3] == [
        "2026-10-24T00:30:00+00:00",
        "2026-10-25T00:30:00+00:00",  # the clocks go back: 02:30 comes twice, the job once
        "2026-10-26T01:30:00+00:00",
    ]
    assert saved() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*TASK, "--cron", "0 0 1--100000000 * *"), "'1--100000000' is not a value, range or step"),
        ((*TASK, "--cron", "61 * * * *"), "61 is not between 0 and 59"),
        (("--task", "no.such", "--every", "5m"), "unknown task 'no.such'"),
        (("--task", mark.name, "--every", "5m"), "label: Field required"),
        ((*TASK[:2], "--args", '{"label": 5}', "--every", "5m"), "label: Input should be a valid string"),
        ((*TASK[:2], "--args", "{", "--every", "5m"), "not JSON"),
        ((*TASK[:2], "--args", "[1]", "--every", "5m"), "not a JSON object"),
        ((*TASK, *WEEKDAYS[:2], "--zone", "Mars/Olympus"), "not a known time zone"),
        ((*TASK, "--every", "0"), "from 1 second"),
        ((*TASK, "--every", "soon"), "use a number of seconds"),
        ((*TASK, "--at", "2001-01-01"), "no slot lies in the future"),
        (TASK, "give exactly one of"),
        ((*TASK, "--every", "5m", "--at", "2030-01-01"), "one of --cron, --every and --at"),
        ((*TASK, "--every", "5m", "--priority", "urgent"), "priority 'urgent'"),
        ((*TASK, "--every", "5m", "--start", "whenever"), "ISO 8601"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_saved(
    command: Command, words: tuple[str, ...], says: str
) -> None:
    refused = command("schedules", "add", "report", *words, "--yes")
    assert refused.exit_code == 2, refused.output
    assert says in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert saved() == []
    assert saved(Operation) == []


def test_a_name_is_given_once_and_an_unknown_one_is_not_found(command: Command) -> None:
    command("schedules", "add", "report", *TASK, *WEEKDAYS, "--yes")
    again = command("schedules", "add", "report", *TASK, "--every", "5m", "--yes")
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    for verb in ("show", "pause", "resume", "run"):
        assert command("schedules", verb, "nope").exit_code == 3
    assert command("schedules", "rm", "nope", "--yes").exit_code == 3
    assert command("schedules", "edit", "nope", "--every", "5m", "--yes").exit_code == 3
    assert len(saved()) == 1


def test_nothing_is_saved_or_removed_without_consent(command: Command) -> None:
    assert command("schedules", "add", "report", *TASK, *WEEKDAYS).exit_code == 2
    assert saved() == []
    command("schedules", "add", "report", *TASK, *WEEKDAYS, "--yes")
    assert command("schedules", "edit", "report", "--every", "5m").exit_code == 2
    assert saved()[0].kind == "cron"
    assert command("schedules", "rm", "report").exit_code == 2
    assert len(saved()) == 1


def test_what_code_owns_may_be_paused_but_not_changed_or_removed(command: Command) -> None:
    command("schedules", "add", "report", *TASK, *WEEKDAYS, "--yes")
    with open_session() as session, session.begin():
        session.exec(select(Schedule)).one().owner = "code"
    refused = command("schedules", "edit", "report", "--every", "5m", "--yes")
    assert (refused.exit_code, "beat/timetable.py" in refused.stderr) == (2, True)
    assert command("schedules", "rm", "report", "--yes").exit_code == 2
    assert command("schedules", "pause", "report").exit_code == 0
