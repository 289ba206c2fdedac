"""Many schedules due at once: what is made ahead is sent, what has changed is not."""

from datetime import datetime, timedelta

import pytest

from taskyard.beat import catalog
from taskyard.beat.engine import firing
from taskyard.beat.engine.publisher import CeleryPublisher, PreparedMessage, SlotMessage
from tests.beat.simulation import START, BeatSimulation, play

CROWD = 30  # schedules


def test_messages_are_made_ahead_and_sent_when_they_are_due(
    simulation: BeatSimulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one costs ten times as much as sending it, and could not be done for thousands in one second."""
    made: list[timedelta] = []

    class Watched(CeleryPublisher):
        def prepare(self, message: SlotMessage, now: datetime) -> PreparedMessage:
            made.append(message.due - now)
            return super().prepare(message, now)

    monkeypatch.setattr("tests.beat.simulation.CeleryPublisher", Watched)
    for number in range(CROWD):
        simulation.plant(f"job-{number}", kind="once", expression=(START + timedelta(seconds=10)).isoformat())
    engine = simulation.engine()
    engine.tick()
    assert not simulation.enqueued()
    simulation.clock.turn(10)
    engine.tick()
    assert sum(simulation.enqueued().values()) == CROWD
    assert made == [timedelta(seconds=10)] * CROWD, "none was made when it was due"
    assert {simulation.newest(f"job-{number}").state for number in range(CROWD)} == {"published"}


def test_a_change_drops_the_message_that_was_made_ahead(simulation: BeatSimulation) -> None:
    simulation.plant("edited", expression="10")
    simulation.plant("paused", expression="10")
    engine = simulation.engine()
    engine.tick()
    simulation.change(catalog.edit, "edited", "tests", args={"label": "new"})
    simulation.change(catalog.pause, "paused", "tests", None)
    play(simulation, engine, 10)
    [run_id] = simulation.enqueued()
    assert str(simulation.newest("edited").id) == run_id
    assert '"label": "new"' in str(simulation.client.hget(f"taskyard:message:{run_id}", "m")).replace("\\", "")


def test_a_broker_that_fails_leaves_the_fires_to_the_repair(
    simulation: BeatSimulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of several fails: the others are not even tried, and all are sent later, once."""
    for number in range(CROWD):
        simulation.plant(f"job-{number}", expression="10")
    engine = simulation.engine()
    engine.tick()
    calls: list[int] = []
    monkeypatch.setattr(firing, "PER_CALL", 5)

    def fail(_: CeleryPublisher, prepared: list[PreparedMessage]) -> None:
        calls.append(len(prepared))
        raise ConnectionError("the cable is cut")

    with monkeypatch.context() as cut:
        cut.setattr(CeleryPublisher, "send", fail)
        simulation.clock.turn(10)
        engine.tick()
    assert not simulation.enqueued()
    assert calls == [5]
    for _ in range(5):
        simulation.clock.turn(5)
        engine.tick()
    counted = simulation.enqueued()
    assert {counted[str(simulation.fires(f"job-{number}")[0].id)] for number in range(CROWD)} == {1}


def test_a_fire_that_could_never_be_sent_counts_as_missed_and_not_as_fired(
    simulation: BeatSimulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `skip` it is given up after the grace; the schedule's numbers say so."""
    simulation.plant(expression="30", misfire="skip")
    engine = simulation.engine()
    engine.tick()
    with monkeypatch.context() as cut:
        cut.setattr(CeleryPublisher, "send", lambda *_: (_ for _ in ()).throw(ConnectionError("the cable is cut")))
        simulation.clock.turn(30)
        engine.tick()
    simulation.clock.turn(89)
    engine.tick()
    assert simulation.slots(state="missed")[0] == 30
    schedule, fires = simulation.schedule(), simulation.fires()
    assert schedule.fired == len([fire for fire in fires if fire.state == "published"])
    assert schedule.missed == sum(fire.slots for fire in fires if fire.state == "missed")
