"""Time zones do not depend on the machine that beat runs on."""

import shutil
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.timing.zones import zone_of


@pytest.fixture
def outdated_machine(tmp_path: Path) -> Iterator[None]:
    """A machine whose own files say that Berlin keeps UTC, and know a zone that is nowhere else."""
    for name in ("Europe/Berlin", "Mars/Olympus"):
        (tmp_path / name).parent.mkdir()
        with as_file(files("tzdata") / "zoneinfo" / "UTC") as utc:
            shutil.copy(utc, tmp_path / name)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    zone_of.cache_clear()
    yield
    zoneinfo.reset_tzpath(to=before)
    zoneinfo.ZoneInfo.clear_cache()
    zone_of.cache_clear()


@pytest.mark.usefixtures("outdated_machine")
def test_zones_come_from_the_pinned_package_whatever_the_machine_knows() -> None:
    summer = datetime(2027, 7, 1)  # noqa: DTZ001 - the zone is added below
    assert summer.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset() == timedelta(0)
    assert summer.replace(tzinfo=zone_of("Europe/Berlin")).utcoffset() == timedelta(hours=2)
    with pytest.raises(InvalidScheduleError):
        zone_of("Mars/Olympus")
