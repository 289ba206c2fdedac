"""Options of `celery worker` and `celery beat` on our apps: taken at their word, or refused with the reason."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from celery.bin.base import LogLevel
from celery.bin.beat import beat
from celery.bin.worker import WorkersPool, worker
from celery.concurrency import get_implementation
from click.core import ParameterSource

OUR_SCHEDULER = "taskyard.beat.scheduler:Scheduler"
PROCESSES_ONLY = (
    *("autoscale", "max_memory_per_child", "max_tasks_per_child", "pool_start_method", "soft_time_limit", "time_limit"),
)
GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


class OptionRefusedError(click.ClickException):
    """An option that would be ignored, or would do harm; one line, without Click's usage before it."""

    exit_code = 2


class WorkerPoolParam(WorkersPool):
    """Pool names; one given on the command line wins over the configuration, `prefork` too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the pool's class."""
        if value == "prefork" and ctx and param and _is_given(ctx, param.name):
            return get_implementation("prefork")
        return super().convert(value, param, ctx)


class LogLevelParam(LogLevel):
    """Log levels; where none is given, LOG_LEVEL says it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the level's number."""
        if ctx and param and not _is_given(ctx, param.name) and _is_ours(ctx):
            from taskyard.settings.loading import current_settings  # noqa: PLC0415 - only our apps need it

            value = current_settings().log_level
        return super().convert(value, param, ctx)


def extend_celery_options() -> None:
    """Let `celery worker` and `celery beat` look at their options before they start; other apps see no change."""
    for command, check in ((worker, check_worker_options), (beat, check_beat_options)):
        for option in command.params:
            if type(option.type) is WorkersPool:
                option.type = WorkerPoolParam()
            elif type(option.type) is LogLevel:
                option.type = LogLevelParam()
        _check_first(command, check)


def check_worker_options(ctx: click.Context) -> None:
    """
    Refuse what the worker would ignore.

    Raises:
        OptionRefusedError: It names the option, and what to use instead.
    """
    pool = ctx.params.get("pool_cls") or ctx.params.get("pool")
    if not str(getattr(pool, "__module__", pool)).endswith("prefork"):
        for name in PROCESSES_ONLY:
            if _is_given(ctx, name):
                raise OptionRefusedError(f"{_flag(name)} needs processes: use it with -P prefork")
    if _is_given(ctx, "schedule_filename") and (ctx.params.get("scheduler") or OUR_SCHEDULER) == OUR_SCHEDULER:
        raise OptionRefusedError(f"{_flag('schedule_filename')}: schedules are in the database, not in a file")
    if ctx.params.get("detach") and (split := [name for name in ("--uid", "--gid") if name in sys.argv]):
        raise OptionRefusedError(f"with --detach, Celery only takes {split[0]} when it is written {split[0]}=NAME")
    _refuse_other_servers(ctx)


def check_beat_options(ctx: click.Context) -> None:
    """
    Refuse what beat would ignore.

    Raises:
        OptionRefusedError: It names the option, and what to use instead.
    """
    if _is_given(ctx, "schedule") and ctx.params.get("scheduler") == OUR_SCHEDULER:
        raise OptionRefusedError("--schedule: schedules are in the database, not in a file")
    if _is_given(ctx, "executable"):
        raise OptionRefusedError("--executable: Celery's beat ignores it; start beat with the Python that you mean")
    _refuse_other_servers(ctx)


def _refuse_other_servers(ctx: click.Context) -> None:
    """History, limits and locks are where REDIS_URL says; messages elsewhere would be half a platform."""
    root = ctx.find_root()
    for name in ("broker", "result_backend"):
        if name in root.params and _is_given(root, name):
            raise OptionRefusedError(f"{_flag(name)}: set REDIS_URL, which all parts of the platform read")


def _check_first(command: click.Command, check: Callable[[click.Context], None]) -> None:
    run: Any = command.callback

    @wraps(run)
    def checked(*args: Any, **options: Any) -> Any:
        ctx = click.get_current_context()
        if _is_ours(ctx):
            check(ctx)
        return run(*args, **options)

    command.callback = checked


def _is_ours(ctx: click.Context) -> bool:
    """Whether the app is Taskyard's; every `celery` command imports this module, so it imports nothing of ours."""
    ours = sys.modules.get("taskyard.tasks.current_app")
    return ours is not None and isinstance(ctx.obj.app, ours.PlatformApp)


def _is_given(ctx: click.Context, name: str | None) -> bool:
    return ctx.get_parameter_source(str(name)) in GIVEN


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
