"""Exit codes, and the edge where every error becomes one line on stderr and one of them."""

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from taskyard.broker.scripts.failover import ServerRefusedError
from taskyard.cli.kit.output import printable
from taskyard.settings.group import SettingsError

FAILED = 1
USAGE = 2
NOT_FOUND = 3
PARTLY_DONE = 4
VERBOSE = "taskyard.verbose"  # key of the Click context's meta
LONGEST_TEXT = 2000  # characters of an error's text
NO_TABLES = ("no such table", "no such column", "does not exist")


class FailedError(click.ClickException):
    """Exit code 1: failed."""

    exit_code = FAILED


class NotFoundError(click.ClickException):
    """Exit code 3: not found."""

    exit_code = NOT_FOUND


class PartlyDoneError(click.ClickException):
    """Exit code 4: partly done."""

    exit_code = PARTLY_DONE


class OperatorCommand(click.Command):
    """A command with `-v`, whose errors are one line on stderr and an exit code."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_remember_verbose,
                help="Print tracebacks of errors.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        with one_line_errors(is_verbose=False):
            _check_encoding(args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command at the edge of the process."""
        with one_line_errors(is_verbose=bool(ctx.meta.get(VERBOSE))):
            return super().invoke(ctx)


@contextmanager
def one_line_errors(*, is_verbose: bool) -> Iterator[None]:
    """Turn any error into a Click exception with one line of printable text; settings errors have one line each."""
    try:
        yield
    except click.ClickException as error:
        if isinstance(error, click.UsageError):
            error.ctx = None  # with it, Click prints three lines more
        error.message = _shown(error)  # type: ignore[misc]  # Click reads it when it prints, and nothing else does
        raise
    except (
        click.exceptions.Exit,
        click.Abort,
        BrokenPipeError,
    ):  # BrokenPipeError: the reader, such as `head`, has enough
        raise
    except Exception as error:  # the edge of the process
        if is_verbose:
            traceback.print_exc()
        raise FailedError(printable(error_line(error), limit=LONGEST_TEXT)) from error


def _check_encoding(words: Iterable[str]) -> None:
    for word in words:
        if "\0" in word or not _is_unicode(word):  # neither databases nor Redis can store it
            raise click.UsageError(f"{printable(word)!r} contains a NUL, or bytes that are not UTF-8")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(error: click.ClickException) -> str:
    if isinstance(error, SettingsError):
        return "\n".join(printable(line, limit=None) for line in error.message.splitlines())
    text = printable(error.message, limit=None) if error.message else ""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[: LONGEST_TEXT // 2]} ... {text[-LONGEST_TEXT // 2 :]}"


def _remember_verbose(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - Click's
    ctx.meta[VERBOSE] = value


def error_line(error: Exception) -> str:
    """Describe an error without SQL statements, parameters and passwords."""
    if isinstance(error, DBAPIError):
        reason = _first_line(error.orig or error)
        if any(sign in reason for sign in NO_TABLES):
            return f"database: {reason}; run: celery -A tasks db upgrade"
        return f"database: {reason}"
    if isinstance(error, SQLAlchemyError):
        return f"database: {_first_line(error)}"
    if _is_loading(error):
        return "broker: the server is loading its data and will answer when that is done; try again in a moment"
    if isinstance(error, BrokerError | RedisError):
        return f"broker: {_first_line(error).rstrip('.')}{_hint(error)}"
    return f"{type(error).__name__}: {_first_line(error)} (use -v for the traceback)"


def _is_loading(error: Exception) -> bool:
    """Whether a Redis server that has just started reads its data, as kombu or redis-py say it."""
    return isinstance(error, BusyLoadingError) or isinstance(error.__cause__, BusyLoadingError)


def _hint(error: Exception) -> str:
    is_away = isinstance(error, BrokerError | RedisConnectionError | RedisTimeoutError)
    has_refused = isinstance(error, ServerRefusedError) or isinstance(error.__cause__, ServerRefusedError)
    return "; start it (celery -A tasks up), or set REDIS_URL" if is_away and not has_refused else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
