"""Errors of schedules and of operations on them; each text is one line for a person."""


class ScheduleError(Exception):
    """Base of the errors of this package."""


class InvalidScheduleError(ScheduleError, ValueError):
    """A definition has an invalid value."""


class ScheduleNotFoundError(ScheduleError, LookupError):
    """No schedule has this name."""


class NameTakenError(ScheduleError):
    """Another schedule has this name."""


class CodeOwnedError(ScheduleError):
    """Code owns this schedule, so a person may pause, resume and run it, but not change it."""


class ScheduleStateError(ScheduleError):
    """The schedule is in the wrong state for this operation."""


class StaleLeaderError(ScheduleError):
    """A newer leader has written to the database, so this process may not."""


class DefinitionsChangedError(ScheduleError):
    """A definition has changed since the leader last read it: read again and decide again."""


class CursorMovedError(ScheduleError):
    """Slots were settled unknown to the leader, because the answer to its commit was lost: read again."""
