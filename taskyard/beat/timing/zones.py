"""Time zones from the pinned package `tzdata`, not from the machine: so that all hosts agree on a slot."""

from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from taskyard.beat.errors import InvalidScheduleError


@cache
def zone_of(name: str) -> ZoneInfo:
    """
    Return the time zone of an IANA name.

    Raises:
        InvalidScheduleError: No such zone.
    """
    if name not in _names():
        raise InvalidScheduleError(f"zone {name[:80]!r}: not a known time zone; use a name such as Europe/Rome")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@cache
def _names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text().split())
