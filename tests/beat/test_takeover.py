"""Leaders are killed, suspended, cut off and moved in time: another one takes over, and no slot comes twice."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.beat.beat_platform import BeatPlatform, BeatProcess, gaps
from tests.beat.moved import MOVABLE
from tests.clocks import need_faketime
from tests.proxy import Proxy
from tests.waiting import stays_true, wait_for

TAKEOVER_LIMIT = 10  # seconds


def other_than(lost: BeatProcess, beats: list[BeatProcess]) -> list[BeatProcess]:
    return [beat for beat in beats if beat is not lost]


def leading(platform: BeatPlatform, beats: list[BeatProcess]) -> BeatProcess:
    found = wait_for(lambda: next((beat for beat in beats if platform.led_by(beat)), None), 30, "one of them leads")
    assert found is not None
    return found


def suspend_between_writes(platform: BeatPlatform, beat: BeatProcess) -> None:
    """A process that is suspended with SQLite's lock keeps it, and nobody can lead: wait for a better moment."""

    def suspended() -> bool:
        beat.suspend()
        if platform.database.can_be_written():
            return True
        beat.resume()
        return False

    wait_for(suspended, 20, "it is suspended, and holds no lock")


def test_a_killed_leader_is_replaced_within_ten_seconds(platform: BeatPlatform) -> None:
    platform.add()
    beats = [platform.beat("one"), platform.beat("two")]
    lost = leading(platform, beats)
    platform.wait_fires(2, "published")
    lost.kill()
    killed_at = time.monotonic()
    heir = leading(platform, other_than(lost, beats))
    assert time.monotonic() - killed_at < TAKEOVER_LIMIT
    platform.wait_fires(platform.schedule().fired + 2, "published")
    platform.end(heir)
    platform.check_books()


def test_a_terminated_leader_hands_over_at_once(platform: BeatPlatform) -> None:
    platform.add()
    beats = [platform.beat("one"), platform.beat("two")]
    lost = leading(platform, beats)
    heir = other_than(lost, beats)[0]
    wait_for(lambda: heir.is_running and platform.fires("job", "published"), 20, "it fires")
    lost.term()
    assert lost.wait_ended() == 0
    asked_at = time.monotonic()
    platform.wait_led_by(heir)
    assert time.monotonic() - asked_at < 4  # its next look, not the end of a lease
    assert "beat.released" in lost.log.read_text()
    platform.end(heir)
    platform.check_books()


def test_a_suspended_leader_that_wakes_late_fires_nothing(platform: BeatPlatform) -> None:
    """It held the lead for thirty seconds of compressed time too long; its first act is to see that it lost it."""
    platform.compress(5)
    platform.add(misfire="run_all", misfire_limit=5)
    beats = [platform.beat("one"), platform.beat("two"), platform.beat("three")]
    lost = leading(platform, beats)
    platform.wait_fires(3, "published")
    suspend_between_writes(platform, lost)
    heirs = other_than(lost, beats)
    suspended_at = time.monotonic()
    leading(platform, heirs)
    assert time.monotonic() - suspended_at < TAKEOVER_LIMIT
    stays_true(lambda: not platform.led_by(lost), 6, "the suspended one does not lead")
    lost.resume()
    wait_for(lambda: lost.says("beat.lead_lost"), 20, "it sees that it lost the lead", lost.tail)
    platform.wait_fires(platform.schedule().fired + 3)
    platform.end(*beats)
    platform.check_books()


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_leader_that_is_cut_from_the_broker_is_replaced(platform: BeatPlatform, silent: bool) -> None:  # noqa: FBT001 - a parameter
    with Proxy(platform.server.port) as cable:
        platform.add()
        cut_off = platform.beat("one", REDIS_URL=cable.url)
        platform.wait_led_by(cut_off)
        heir = platform.beat("two")
        platform.wait_fires(2, "published")
        cable.cut(silent=silent)
        cut_at = time.monotonic()
        platform.wait_led_by(heir)
        assert time.monotonic() - cut_at < TAKEOVER_LIMIT
        platform.wait_fires(platform.schedule().fired + 2, "published")
        cable.heal()
        assert cut_off.is_running
        wait_for(lambda: cut_off.says("beat.broker_back"), 10, "it finds the broker again", cut_off.tail)
        platform.end(cut_off, heir)
        platform.check_books()


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_leader_that_is_cut_from_the_database_gives_the_lead_to_one_that_is_not(
    platform: BeatPlatform,
    silent: bool,  # noqa: FBT001 - a parameter
) -> None:
    url = make_url(platform.database.url)
    with Proxy(url.port or 5432) as cable:
        platform.add()
        through = url.set(port=cable.port).render_as_string(hide_password=False)
        cut_off = platform.beat("one", DATABASE_URL=through)
        platform.wait_led_by(cut_off)
        heir = platform.beat("two")
        platform.wait_fires(2, "published")
        cable.cut(silent=silent)
        cut_at = time.monotonic()
        platform.wait_led_by(heir)
        platform.wait_fires(platform.schedule().fired + 2, "published")
        assert time.monotonic() - cut_at < TAKEOVER_LIMIT + 2
        cable.heal()
        # A silent cut it may notice only by the lead that it lost meanwhile; or in time, and then it gives the lead up.
        signs = ("beat.lead_lost", "beat.database_back") if silent else ("beat.database_back",)
        wait_for(lambda: any(map(cut_off.says, signs)), 10, "it finds the database again", cut_off.tail)
        platform.end(cut_off, heir)
        platform.check_books()


def test_a_broker_that_forgets_everything_does_not_let_an_older_leader_win(platform: BeatPlatform) -> None:
    """The fencing number starts again at one in the broker; the database knows a higher one, and the next is above."""
    platform.add()
    platform.client.set("taskyard:{beat}:fence", 41)
    beat = platform.beat()
    platform.wait_led_by(beat)
    platform.wait_fires(2, "published")
    before = platform.fires("job", "published")
    platform.client.flushall()
    wait_for(lambda: (leader := platform.leader()) is not None and leader.token > 42, 15, "a higher token")
    fires = platform.wait_fires(len(before) + 2, "published")
    assert {fire.fence for fire in fires} == {42, 43}
    platform.end(beat)


def test_processes_whose_clocks_are_two_hours_off_fire_nothing_early_late_or_twice(platform: BeatPlatform) -> None:
    """The broker's clock counts, whatever the clock of the machine says."""
    faketime = need_faketime()
    platform.add()
    for offset in ("+2h", "-2h", "+0"):
        beat = platform.beat(f"beat{offset}", LD_PRELOAD=faketime, FAKETIME=offset)
        platform.wait_led_by(beat, limit=60)
        platform.wait_fires(platform.schedule().fired + 3, "published")
        platform.end(beat)
        assert abs(platform.fires()[-1].slot - datetime.now(UTC)) < timedelta(seconds=15)
    platform.check_books()


def test_a_leader_whose_clock_is_moved_by_two_hours_goes_on_as_if_nothing_was(
    platform: BeatPlatform, tmp_path: Path
) -> None:
    """Set forward, then far back, under a process that leads; another one, whose clock is right, stands by."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    moved = {"FAKETIME_TIMESTAMP_FILE": str(clock), "LD_PRELOAD": need_faketime(), **MOVABLE}
    platform.add(misfire="run_all", misfire_limit=100)
    leader = platform.beat("moved", "tests.beat.moved:Scheduler", **moved)
    platform.wait_led_by(leader, limit=60)
    heir = platform.beat("right")
    before = datetime.now(UTC)
    for offset in ("+2h", "-2h"):
        clock.write_text(offset)
        platform.wait_fires(platform.schedule().fired + 4, "published")
        assert abs(platform.fires()[-1].slot - datetime.now(UTC)) < timedelta(seconds=5)
        assert platform.led_by(leader), leader.tail()
    platform.end(leader, heir)
    published = platform.check_books()
    assert gaps(published) == {timedelta(seconds=1)}
    assert max(fire.lag_ms or 0 for fire in published if fire.slot > before) < 30_000  # not hours
