"""Exceptions of handlers across processes: they keep class, text and dead letter reason, whatever their constructor."""

import pickle
from typing import Any

import celery.app.trace
import celery.exceptions
from celery.utils.serialization import UnpickleableExceptionWrapper

LONGEST_REASON = 32  # characters; of the column


def error_name(error: BaseException) -> str:
    """Return the name of the exception's class, also of one that could not be pickled."""
    if isinstance(error, UnpickleableExceptionWrapper):
        return str(error.exc_cls_name)
    return type(error).__name__


def error_text(error: BaseException) -> str:
    """Return the exception's text; a placeholder if its `__str__` raises or returns no string."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - its code is the app's: whatever it raises, the outcome must be recorded
        return f"<no text: __str__ raised {type(fault).__name__}>"


def dead_letter_reason(error: BaseException) -> str:
    """Return the reason that an exception gives its dead letter; by default the attempts are exhausted."""
    try:
        reason = getattr(error, "dead_letter_reason", None)
    except Exception:  # noqa: BLE001 - a property of the app's code
        reason = None
    return reason[:LONGEST_REASON] if isinstance(reason, str) and reason else "exhausted"


def portable(error: Exception) -> Exception:
    """
    Return the exception in a form that pickling does not change.

    pickle calls the constructor with `args`, which fails or changes the text if it takes something else: then the
    exception is rebuilt without it. If its class cannot be pickled at all, a wrapper carries its name, text and reason.
    """
    if _survives(error):
        return error
    for attributes in (_attributes(error), {}):
        try:
            vars(error)["__reduce_ex__"] = _Rebuild(type(error), error.args, attributes)  # pickle asks the instance
        except TypeError:  # it has no attributes
            break
        if _survives(error):
            return error
    text = error_text(error)
    wrapper: Any = UnpickleableExceptionWrapper(type(error).__module__, error_name(error), (), text)
    wrapper.dead_letter_reason = dead_letter_reason(error)
    carried: Exception = wrapper.with_traceback(error.__traceback__)
    return carried


def use_portable_errors() -> None:
    """Replace Celery's own function for this: it makes of such an exception one of a base class, or a wrapper."""
    users: tuple[Any, ...] = (celery.app.trace, celery.exceptions)
    for module in users:
        module.get_pickleable_exception = portable


class _Rebuild:
    """The `__reduce_ex__` of one exception."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __call__(self, protocol: Any) -> Any:  # noqa: ARG002 - pickle's signature
        return _rebuild, self._parts


def _rebuild(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _attributes(error: Exception) -> dict[str, Any]:
    """Return the attributes that can be pickled."""
    kept = {}
    for name, value in vars(error).items():
        try:
            pickle.loads(pickle.dumps(value))  # noqa: S301 - what we have just dumped
        except Exception:  # noqa: BLE001, S112 - code of the app's classes; what cannot travel is left out
            continue
        kept[name] = value
    kept.pop("__reduce_ex__", None)
    return kept


def _survives(error: Exception) -> bool:
    try:
        copy: Any = pickle.loads(pickle.dumps(error))  # noqa: S301 - what we have just dumped
    except Exception:  # noqa: BLE001 - code of the app's class
        return False
    if type(copy) is not type(error):
        return False
    return error_text(copy) == error_text(error) and dead_letter_reason(copy) == dead_letter_reason(error)
