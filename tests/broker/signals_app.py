"""The test app, with what a user's own code sees of each run recorded: signals and the task's context."""

import json
import os
from collections.abc import Callable
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore, Reject

from tests.broker.app import app as app  # noqa: PLC0414 - what `celery -A` looks for
from tests.broker.app import records


@app.task(name="show", bind=True, resultrepr_maxsize=10_000)  # a cut would hide fields
def show(self: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, str]:
    """Return what the task knows of its request."""
    given = {"given args": str(args), "given kwargs": str(kwargs)}
    return given | {name: str(value) for name, value in vars(self.request).items() if value is not None}


@app.task(name="early", acks_late=False)
def early(*, fails: bool) -> str:
    """Run after its message was acknowledged."""
    if fails:
        raise ValueError("early")
    return "early"


@app.task(name="limited", rate_limit="1000/s")
def limited() -> str:
    """Run under a rate limit of the worker."""
    return "limited"


@app.task(name="ignore", bind=True)
def ignore(self: Task[..., Any]) -> None:
    """Leave the outcome to somebody else."""
    raise Ignore(self.name)


@app.task(name="reject", bind=True)
def reject(self: Task[..., Any], *, requeue: bool) -> str:
    """Refuse the message, with `requeue` once only."""
    if records.incr(f"seen:{self.request.id}") == 1:
        raise Reject("refused", requeue=requeue)
    return "second"


def _record(signal: str, run: str, /, **facts: Any) -> None:
    line = json.dumps([os.getpid(), {"signal": signal, **facts}], default=str)
    records.rpush(f"signals:{run}", line)


def _received(request: Any, **_: Any) -> None:
    records.hset(f"content-types:{request.hostname}", request.name, str(request.content_type))
    facts = {name: getattr(request, name) for name in ("name", "args", "kwargs", "argsrepr", "kwargsrepr")}
    more = {name: getattr(request, name) for name in ("eta", "expires", "hostname", "delivery_info", "time_limits")}
    _record("received", request.id, **facts, **more, text=str(request))


def _prerun(task_id: str, args: Any, kwargs: Any, **_: Any) -> None:
    _record("prerun", task_id, args=args, kwargs=kwargs)


def _postrun(task_id: str, args: Any, kwargs: Any, retval: Any, state: Any, **_: Any) -> None:
    _record("postrun", task_id, args=args, kwargs=kwargs, retval=retval, state=state)


def _succeeded(sender: Any, result: Any, **_: Any) -> None:
    _record("success", sender.request.id, result=result, name=sender.name)


def _retried(sender: Any, request: Any, reason: Any, einfo: Any, **_: Any) -> None:
    _record("retry", request.id, reason=reason, traceback=str(einfo), name=sender.name)


def _failed(sender: Any, task_id: str, exception: Any, einfo: Any, **facts: Any) -> None:
    given = {"args": facts["args"], "kwargs": facts["kwargs"]}
    _record("failure", task_id, error=repr(exception), **given, traceback=str(einfo), name=sender.name)


def _revoked(sender: Any, request: Any, terminated: bool, signum: Any, expired: bool, **_: Any) -> None:  # noqa: FBT001 - Celery's
    _record("revoked", request.id, terminated=terminated, signum=signum, expired=expired, name=sender.name)


def _internal_error(task_id: str, exception: Any, **_: Any) -> None:
    _record("internal error", task_id, error=repr(exception))


RECEIVERS: dict[str, Callable[..., None]] = {
    "task_received": _received,
    "task_prerun": _prerun,
    "task_postrun": _postrun,
    "task_success": _succeeded,
    "task_retry": _retried,
    "task_failure": _failed,
    "task_revoked": _revoked,
    "task_internal_error": _internal_error,
}

if os.environ.get("RECORD_SIGNALS"):
    for name, receiver in RECEIVERS.items():
        getattr(signals, name).connect(receiver, weak=False)
