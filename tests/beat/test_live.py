"""Real processes while people and outages are at work: changes within two seconds, no overlap, nothing doubled."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy.engine import make_url

from taskyard.beat import catalog
from tests.beat.beat_platform import BeatPlatform, seldom
from tests.proxy import Proxy
from tests.waiting import stays_true, wait_for

EFFECTIVE = 2.0  # seconds after the change was saved
SLACK = 1.0  # seconds that a busy machine may need in addition


def change(platform: BeatPlatform, act: Callable[..., object], *words: object, **options: object) -> None:
    with platform.database.session() as session, session.begin():
        act(session, *words, **options)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_changes_while_it_runs_are_effective_within_two_seconds(platform: BeatPlatform) -> None:
    beat = platform.beat()
    platform.wait_led_by(beat, limit=60)
    platform.add(expression="1")
    added = time.monotonic()
    wait_for(platform.fires, EFFECTIVE + SLACK, "the new schedule fires")
    assert time.monotonic() - added < EFFECTIVE + SLACK
    change(platform, catalog.edit, "job", "tests", args={"label": "changed"}, expression="2")
    edited = platform.schedule().updated_at
    platform.wait_fires(len(platform.fires()) + 3)
    late = [fire for fire in platform.fires() if fire.slot - edited > timedelta(seconds=EFFECTIVE)]
    assert late
    assert {fire.slot.second % 2 for fire in late} == {0}
    change(platform, catalog.pause, "job", "tests", None)
    paused = platform.schedule().paused_at
    assert paused is not None
    stays_true(lambda: True, 4, "time passes")
    assert platform.fires()[-1].recorded_at - paused < timedelta(seconds=EFFECTIVE)
    assert not [f for f in platform.fires("job", "published") if f.slot - paused > timedelta(seconds=EFFECTIVE)]
    change(platform, catalog.resume, "job", "tests")
    platform.wait_fires(len(platform.fires()) + 1, limit=EFFECTIVE + 2 + SLACK)
    change(platform, catalog.remove, "job")
    before = sum(platform.enqueued().values())
    stays_true(lambda: sum(platform.enqueued().values()) <= before + 2, 4, "a removed schedule does not fire")


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_schedule_of_a_second_with_a_task_of_five_never_runs_twice_at_once(platform: BeatPlatform) -> None:
    for number in range(3):
        platform.worker(f"worker{number}")
    platform.add(expression="1", args={"label": "long", "seconds": 5}, overlap="skip")
    beat = platform.beat()
    wait_for(seldom(lambda: len([m for m in platform.marks() if m[0] == "end"]) >= 3), 60, "three runs are done")
    platform.end(beat)
    running, most = 0, 0
    for what, *_ in sorted(platform.marks(), key=lambda mark: mark[3]):
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 1
    schedule = platform.schedule()
    assert schedule.skipped == len(platform.fires("job", "skipped"))
    assert schedule.skipped >= 3 * schedule.fired  # about four of five
    platform.check_books()


@pytest.mark.parametrize("how", ["broker", "database"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_an_outage_delays_and_never_doubles(platform: BeatPlatform, how: str) -> None:
    """All beat processes lose the broker, or the database, for six seconds; no process ends."""
    url = make_url(platform.database.url)
    with Proxy(platform.server.port) as to_broker, Proxy(url.port or 5432) as to_database:
        through = url.set(port=to_database.port).render_as_string(hide_password=False)
        platform.add("all", misfire="run_all", misfire_limit=100)
        platform.add("one", misfire="run_once")
        beats = [platform.beat(name, REDIS_URL=to_broker.url, DATABASE_URL=through) for name in ("one", "two")]
        platform.wait_fires(3, "published", name="all", limit=60)
        cable = to_broker if how == "broker" else to_database
        cable.cut()
        stays_true(lambda: all(beat.is_running for beat in beats), 6, "both processes live")
        fired = platform.schedule("all").fired
        cable.heal()
        platform.wait_fires(fired + 8, "published", name="all", limit=60)
        platform.end(*beats)
    platform.check_books("one")
    published = platform.check_books("all")
    assert platform.schedule("all").missed == 0, "run_all makes up for all"
    assert len({fire.slot for fire in published}) == len(published)
