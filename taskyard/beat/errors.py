"""What can be wrong with a schedule, or with what an operator asks of it; each text is one line for a person."""


class ScheduleError(Exception):
    """Base of the errors of this package."""


class InvalidScheduleError(ScheduleError, ValueError):
    """A definition has a wrong value; nothing was saved."""


class ScheduleNotFoundError(ScheduleError, LookupError):
    """No schedule has this name."""


class NameTakenError(ScheduleError):
    """Another schedule has this name."""


class CodeOwnedError(ScheduleError):
    """Code owns this schedule, so a person may pause, resume and run it, but not change it."""


class ScheduleStateError(ScheduleError):
    """The schedule is not in a state for this."""


class StaleLeaderError(ScheduleError):
    """A newer leader has written to the database, so this process must not."""


class DefinitionsChangedError(ScheduleError):
    """A definition changed since the leader last read them: read again, then decide again."""


class CursorMovedError(ScheduleError):
    """Slots are settled that the leader does not know of, since the answer to its commit was lost: read again."""
