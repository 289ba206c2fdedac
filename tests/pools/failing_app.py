"""The app of these tests with handlers that raise exceptions of every make."""

from collections.abc import Callable
from datetime import timedelta

from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import PermanentError, RetryAfter, Snooze
from taskyard.tasks.policy import Fixed, Policy
from tests.pools.app import Label, app, note

__all__ = ["app"]  # `celery -A` looks for the app here

TWICE = Policy(max_attempts=2, backoff=Fixed(timedelta(milliseconds=10)))


class ApiError(Exception):
    """Its constructor takes something else than its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class ClosedAccountError(PermanentError):
    """A permanent error with a reason and a constructor of its own."""

    dead_letter_reason = "account_closed"

    def __init__(self, account: str, *, since: str) -> None:
        super().__init__(f"account {account} is closed since {since}")


class PrefixingError(Exception):
    """Its constructor changes its text each time that it is called."""

    def __init__(self, text: str) -> None:
        super().__init__(f"E: {text}")


class MuteError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class LockedError(Exception):
    """One of its attributes cannot travel to another process."""

    def __init__(self, what: str) -> None:
        super().__init__(what, lambda: what)

    def __str__(self) -> str:
        return f"{self.args[0]} is locked"


def local_error() -> Exception:
    """Make an exception whose class no other process can find."""

    class HiddenError(PermanentError):
        dead_letter_reason = "hidden"

    return HiddenError("nobody finds its class")


ERRORS: dict[str, Callable[[], Exception]] = {
    "api": lambda: ApiError(502, "no answer"),
    "closed": lambda: ClosedAccountError("17", since="May"),
    "prefixing": lambda: PrefixingError("again"),
    "mute": lambda: MuteError("x"),
    "locked": lambda: LockedError("the door"),
    "local": local_error,
    "group": lambda: ExceptionGroup("several", [ApiError(1, "one")]),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no such byte"),
    "text": lambda: Snooze("5"),  # type: ignore[arg-type]  # wrong on purpose
    "none": lambda: RetryAfter(None),  # type: ignore[arg-type]  # as above
}
FOUND = {  # class, text and reason of the dead letter; how often it was tried
    "api": ("ApiError", "502: no answer", "exhausted", 2),
    "closed": ("ClosedAccountError", "account 17 is closed since May", "account_closed", 1),
    "prefixing": ("PrefixingError", "E: again", "exhausted", 2),
    "mute": ("MuteError", "<no text: __str__ raised RuntimeError>", "exhausted", 2),
    "locked": ("LockedError", "the door is locked", "exhausted", 2),
    "local": ("HiddenError", "nobody finds its class", "hidden", 1),
    "group": ("ExceptionGroup", "several (1 sub-exception)", "exhausted", 2),
    "unicode": (
        "UnicodeDecodeError",
        "'utf-8' codec can't decode byte 0xff in position 0: no such byte",
        "exhausted",
        2,
    ),
    "text": ("InvalidDelayError", "Snooze('5'): give a timedelta or a number of seconds", "permanent", 1),
    "none": ("InvalidDelayError", "RetryAfter(None): give a timedelta or a number of seconds", "permanent", 1),
}


@task("failing.throw", Label, queue=DEFAULT, policy=TWICE)
def throw(payload: Label) -> None:
    """Raise what the label says."""
    note("try", payload.label)
    error = ERRORS[payload.label]()
    raise error


@app.task(name="failing.plain", queue="celery")
def plain(label: str) -> None:
    """Raise what the label says, in a task without a payload model."""
    error = ERRORS[label]()
    raise error
