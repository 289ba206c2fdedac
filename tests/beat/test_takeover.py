"""Leaders are killed, suspended, cut off and moved in time: another one takes over, and no slot comes twice."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.beat.moved import MOVABLE
from tests.beat.stage import Beat, Stage, gaps
from tests.proxy import Proxy
from tests.waiting import stays_true, wait_for

TAKEOVER_LIMIT = 10  # seconds
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def other_than(lost: Beat, beats: list[Beat]) -> list[Beat]:
    return [beat for beat in beats if beat is not lost]


def leading(stage: Stage, beats: list[Beat]) -> Beat:
    found = wait_for(lambda: next((beat for beat in beats if stage.led_by(beat)), None), 30, "one of them leads")
    assert found is not None
    return found


def suspend_between_writes(stage: Stage, beat: Beat) -> None:
    """A process that is suspended with SQLite's lock keeps it, and nobody can lead: wait for a better moment."""

    def suspended() -> bool:
        beat.suspend()
        if stage.database.can_be_written():
            return True
        beat.resume()
        return False

    wait_for(suspended, 20, "it is suspended, and holds no lock")


def test_a_killed_leader_is_replaced_within_ten_seconds(stage: Stage) -> None:
    stage.add()
    beats = [stage.beat("one"), stage.beat("two")]
    lost = leading(stage, beats)
    stage.wait_fires(2, "published")
    lost.kill()
    killed_at = time.monotonic()
    heir = leading(stage, other_than(lost, beats))
    assert time.monotonic() - killed_at < TAKEOVER_LIMIT
    stage.wait_fires(stage.schedule().fired + 2, "published")
    stage.end(heir)
    stage.check_books()


def test_a_terminated_leader_hands_over_at_once(stage: Stage) -> None:
    stage.add()
    beats = [stage.beat("one"), stage.beat("two")]
    lost = leading(stage, beats)
    heir = other_than(lost, beats)[0]
    wait_for(lambda: heir.is_running and stage.fires("job", "published"), 20, "it fires")
    lost.term()
    assert lost.wait_ended() == 0
    asked_at = time.monotonic()
    stage.wait_led_by(heir)
    assert time.monotonic() - asked_at < 4  # its next look, not the end of a lease
    assert "beat.released" in lost.log.read_text()
    stage.end(heir)
    stage.check_books()


def test_a_suspended_leader_that_wakes_late_fires_nothing(stage: Stage) -> None:
    """It held the lead for thirty seconds of compressed time too long; its first act is to see that it lost it."""
    stage.compress(5)
    stage.add(misfire="run_all", misfire_limit=5)
    beats = [stage.beat("one"), stage.beat("two"), stage.beat("three")]
    lost = leading(stage, beats)
    stage.wait_fires(3, "published")
    suspend_between_writes(stage, lost)
    heirs = other_than(lost, beats)
    suspended_at = time.monotonic()
    leading(stage, heirs)
    assert time.monotonic() - suspended_at < TAKEOVER_LIMIT
    stays_true(lambda: not stage.led_by(lost), 6, "the suspended one does not lead")
    lost.resume()
    wait_for(lambda: lost.says("beat.lead_lost"), 20, "it sees that it lost the lead", lost.tail)
    stage.wait_fires(stage.schedule().fired + 3)
    stage.end(*beats)
    stage.check_books()


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_leader_that_is_cut_from_the_broker_is_replaced(stage: Stage, silent: bool) -> None:  # noqa: FBT001 - a parameter
    with Proxy(stage.server.port) as cable:
        stage.add()
        cut_off = stage.beat("one", REDIS_URL=cable.url)
        stage.wait_led_by(cut_off)
        heir = stage.beat("two")
        stage.wait_fires(2, "published")
        cable.cut(silent=silent)
        cut_at = time.monotonic()
        stage.wait_led_by(heir)
        assert time.monotonic() - cut_at < TAKEOVER_LIMIT
        stage.wait_fires(stage.schedule().fired + 2, "published")
        cable.heal()
        assert cut_off.is_running
        wait_for(lambda: cut_off.says("beat.broker_back"), 10, "it finds the broker again", cut_off.tail)
        stage.end(cut_off, heir)
        stage.check_books()


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_leader_that_is_cut_from_the_database_gives_the_lead_to_one_that_is_not(stage: Stage, silent: bool) -> None:  # noqa: FBT001 - a parameter
    url = make_url(stage.database.url)
    with Proxy(url.port or 5432) as cable:
        stage.add()
        through = url.set(port=cable.port).render_as_string(hide_password=False)
        cut_off = stage.beat("one", DATABASE_URL=through)
        stage.wait_led_by(cut_off)
        heir = stage.beat("two")
        stage.wait_fires(2, "published")
        cable.cut(silent=silent)
        cut_at = time.monotonic()
        stage.wait_led_by(heir)
        stage.wait_fires(stage.schedule().fired + 2, "published")
        assert time.monotonic() - cut_at < TAKEOVER_LIMIT + 2
        cable.heal()
        # A silent cut it may notice only by the lead that it lost meanwhile; or in time, and then it gives the lead up.
        signs = ("beat.lead_lost", "beat.database_back") if silent else ("beat.database_back",)
        wait_for(lambda: any(map(cut_off.says, signs)), 10, "it finds the database again", cut_off.tail)
        stage.end(cut_off, heir)
        stage.check_books()


def test_a_broker_that_forgets_everything_does_not_let_an_older_leader_win(stage: Stage) -> None:
    """The fencing number starts again at one in the broker; the database knows a higher one, and the next is above."""
    stage.add()
    stage.client.set("taskyard:{beat}:fence", 41)
    beat = stage.beat()
    stage.wait_led_by(beat)
    stage.wait_fires(2, "published")
    before = stage.fires("job", "published")
    stage.client.flushall()
    wait_for(lambda: (leader := stage.leader()) is not None and leader.token > 42, 15, "a higher token")
    fires = stage.wait_fires(len(before) + 2, "published")
    assert {fire.fence for fire in fires} == {42, 43}
    stage.end(beat)


def test_processes_whose_clocks_are_two_hours_off_fire_nothing_early_late_or_twice(stage: Stage) -> None:
    """The broker's clock counts, whatever the clock of the machine says."""
    faketime = need_faketime()
    stage.add()
    for offset in ("+2h", "-2h", "+0"):
        beat = stage.beat(f"beat{offset}", LD_PRELOAD=faketime, FAKETIME=offset)
        stage.wait_led_by(beat, limit=60)
        stage.wait_fires(stage.schedule().fired + 3, "published")
        stage.end(beat)
        assert abs(stage.fires()[-1].slot - datetime.now(UTC)) < timedelta(seconds=15)
    stage.check_books()


def test_a_leader_whose_clock_is_moved_by_two_hours_goes_on_as_if_nothing_was(stage: Stage, tmp_path: Path) -> None:
    """Set forward, then far back, under a process that leads; another one, whose clock is right, stands by."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    moved = {"FAKETIME_TIMESTAMP_FILE": str(clock), "LD_PRELOAD": need_faketime(), **MOVABLE}
    stage.add(misfire="run_all", misfire_limit=100)
    leader = stage.beat("moved", "tests.beat.moved:Scheduler", **moved)
    stage.wait_led_by(leader, limit=60)
    heir = stage.beat("right")
    before = datetime.now(UTC)
    for offset in ("+2h", "-2h"):
        clock.write_text(offset)
        stage.wait_fires(stage.schedule().fired + 4, "published")
        assert abs(stage.fires()[-1].slot - datetime.now(UTC)) < timedelta(seconds=5)
        assert stage.led_by(leader), leader.tail()
    stage.end(leader, heir)
    published = stage.check_books()
    assert gaps(published) == {timedelta(seconds=1)}
    assert max(fire.lag_ms or 0 for fire in published if fire.slot > before) < 30_000  # not hours


def need_faketime() -> str:
    if not FAKETIME.exists():
        reason = "libfaketime is not installed (apt-get install faketime)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return str(FAKETIME)
