"""Many schedules due at once: what is made ahead is sent, what has changed is not."""

from datetime import datetime, timedelta

import pytest

from taskyard.beat import catalog
from taskyard.beat.engine import firing
from taskyard.beat.engine.publisher import CeleryPublisher, PreparedMessage, SlotMessage
from tests.beat.desk import START, Desk, play

CROWD = 30  # schedules


def test_messages_are_made_ahead_and_sent_when_they_are_due(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one costs ten times as much as sending it, and could not be done for thousands in one second."""
    made: list[timedelta] = []

    class Watched(CeleryPublisher):
        def prepare(self, message: SlotMessage, now: datetime) -> PreparedMessage:
            made.append(message.due - now)
            return super().prepare(message, now)

    monkeypatch.setattr("tests.beat.desk.CeleryPublisher", Watched)
    for number in range(CROWD):
        desk.plant(f"job-{number}", kind="once", expression=(START + timedelta(seconds=10)).isoformat())
    engine = desk.engine()
    engine.tick()
    assert not desk.enqueued()
    desk.clock.turn(10)
    engine.tick()
    assert sum(desk.enqueued().values()) == CROWD
    assert made == [timedelta(seconds=10)] * CROWD, "none was made when it was due"
    assert {desk.newest(f"job-{number}").state for number in range(CROWD)} == {"published"}


def test_a_change_drops_the_message_that_was_made_ahead(desk: Desk) -> None:
    desk.plant("edited", expression="10")
    desk.plant("paused", expression="10")
    engine = desk.engine()
    engine.tick()
    desk.change(catalog.edit, "edited", "tests", args={"label": "new"})
    desk.change(catalog.pause, "paused", "tests", None)
    play(desk, engine, 10)
    [run_id] = desk.enqueued()
    assert str(desk.newest("edited").id) == run_id
    assert '"label": "new"' in str(desk.client.hget(f"taskyard:message:{run_id}", "m")).replace("\\", "")


def test_a_broker_that_fails_leaves_the_fires_to_the_repair(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of several fails: the others are not even tried, and all are sent later, once."""
    for number in range(CROWD):
        desk.plant(f"job-{number}", expression="10")
    engine = desk.engine()
    engine.tick()
    calls: list[int] = []
    monkeypatch.setattr(firing, "PER_CALL", 5)

    def fail(_: CeleryPublisher, prepared: list[PreparedMessage]) -> None:
        calls.append(len(prepared))
        raise ConnectionError("the cable is cut")

    with monkeypatch.context() as cut:
        cut.setattr(CeleryPublisher, "send", fail)
        desk.clock.turn(10)
        engine.tick()
    assert not desk.enqueued()
    assert calls == [5]
    for _ in range(5):
        desk.clock.turn(5)
        engine.tick()
    counted = desk.enqueued()
    assert {counted[str(desk.fires(f"job-{number}")[0].id)] for number in range(CROWD)} == {1}


def test_a_fire_that_could_never_be_sent_counts_as_missed_and_not_as_fired(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `skip` it is given up after the grace; the schedule's numbers say so."""
    desk.plant(expression="30", misfire="skip")
    engine = desk.engine()
    engine.tick()
    with monkeypatch.context() as cut:
        cut.setattr(CeleryPublisher, "send", lambda *_: (_ for _ in ()).throw(ConnectionError("the cable is cut")))
        desk.clock.turn(30)
        engine.tick()
    desk.clock.turn(89)
    engine.tick()
    assert desk.slots(state="missed")[0] == 30
    schedule, fires = desk.schedule(), desk.fires()
    assert schedule.fired == len([fire for fire in fires if fire.state == "published"])
    assert schedule.missed == sum(fire.slots for fire in fires if fire.state == "missed")
