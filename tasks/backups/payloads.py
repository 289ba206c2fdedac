"""Payload of the backup task: which profile, never an address or a secret."""

from typing import Annotated

from pydantic import Field

from taskyard import Payload

TARGET_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,30}$"  # part of a scratch database's name, which has 63 bytes at most

type TargetName = Annotated[str, Field(pattern=TARGET_PATTERN)]


class VerifyBackup(Payload):
    """Verify the newest backup of one target."""

    target: TargetName | None = None  # a profile's name; None: every profile, each as a run of its own
    is_new_baseline: bool = False  # do not compare with the last good run: the data shrank on purpose
