"""Settings, queues and profiles: what every process reads before it starts."""

from taskyard.settings.group import SettingsError, SettingsGroup
from taskyard.settings.loading import current_settings
from taskyard.settings.platform import Settings
from taskyard.settings.queues import DEFAULT, MAINTENANCE, PriorityName, Queue
from taskyard.settings.types import HttpUrl, Interval, Milliseconds, Seconds, SecondsList, Timeout, Words

__all__ = [
    "DEFAULT",
    "MAINTENANCE",
    "HttpUrl",
    "Interval",
    "Milliseconds",
    "PriorityName",
    "Queue",
    "Seconds",
    "SecondsList",
    "Settings",
    "SettingsError",
    "SettingsGroup",
    "Timeout",
    "Words",
    "current_settings",
]
