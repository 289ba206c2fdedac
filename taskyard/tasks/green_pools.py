"""Refuse gevent and eventlet: our leases and shutdown rely on real threads, which these pools replace."""

from typing import Any

import click

GREEN_POOLS = ("eventlet", "gevent")


class PoolRefusedError(click.ClickException):
    """The pool cannot keep the promises of the platform."""

    exit_code = 2


def refuse_green_pools(pool: str) -> None:
    """
    Look at a pool's name, its class's path, or the text of its class.

    Raises:
        PoolRefusedError: It is a pool of green threads.
    """
    name = next((green for green in GREEN_POOLS if green in pool.lower()), None)
    if name is not None:
        raise PoolRefusedError(
            f"the pool {name} is not supported: leases and shutdown rely on real threads, which it replaces; "
            "use -P threads, or async def handlers in the asyncio pool (docs/asyncio.md)"
        )


def pool_check() -> click.Option:
    """
    Return a hidden option of `celery worker` that looks at its pool while the command line is read.

    With `--detach`, and so in `celery multi`, the worker itself starts where nobody sees its error or exit code.
    """

    def look(ctx: click.Context, _option: click.Parameter, _value: Any) -> None:
        refuse_green_pools(str(ctx.params.get("pool") or ""))

    return click.Option(["--check-pool"], is_flag=True, hidden=True, expose_value=False, callback=look)
