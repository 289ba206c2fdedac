"""Payloads: what a task is given. Checked where a task is enqueued, and again where it runs."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Self, TypeAliasType, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from taskyard.history.audit_policy import current_policy
from taskyard.tasks.errors import InvalidPayloadError

MAX_BYTES = 262_144  # of one payload as JSON: ids and facts, not objects


class Hidden:
    """Marks a payload field whose value no log, record or listing may show: ``Annotated[str, Hidden()]``."""


type Secret = Annotated[str, Hidden()]


class Payload(BaseModel):
    """
    Base of all payload models: frozen, strict, unknown fields refused.

    A payload may only grow by fields with a default, and workers are deployed before callers.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # where any value is allowed: `to_wire` refuses it, else it would become null
        hide_input_in_errors=True,
    )

    @classmethod
    def checked(cls, **fields: Any) -> Self:
        """
        Make a payload from Python values.

        Raises:
            InvalidPayloadError: A field is missing, unknown or of a wrong type.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise _invalid(cls, error) from None

    @classmethod
    def from_wire(cls, kwargs: Mapping[str, Any]) -> Self:
        """
        Make a payload from a message's keyword arguments: JSON values, such as text for a UUID or a date.

        Raises:
            InvalidPayloadError: As :meth:`checked`, or a value that is not JSON.
        """
        if not isinstance(kwargs, Mapping):
            raise InvalidPayloadError(f"{cls.__name__}: give the fields by name, not a {type(kwargs).__name__}")
        try:
            return cls.model_validate_json(to_json(dict(kwargs)))
        except ValidationError as error:
            raise _invalid(cls, error) from None
        except PydanticSerializationError as error:
            raise InvalidPayloadError(f"{cls.__name__}: {error}") from None

    def to_wire(self) -> dict[str, Any]:
        """
        Return the JSON values that travel as the message's keyword arguments.

        Raises:
            InvalidPayloadError: Larger than 256 KiB, nested deeper than 200, or not to be written as JSON.
        """
        try:
            text = self.model_dump_json().encode()
            wire: dict[str, Any] = from_json(text, allow_inf_nan=False)  # as a worker reads it: refuses what one would
        except ValueError as error:
            raise InvalidPayloadError(f"{type(self).__name__}: {error}; store the data and send its id") from None
        if len(text) > MAX_BYTES:
            raise InvalidPayloadError(
                f"{type(self).__name__}: {len(text)} bytes, at most {MAX_BYTES} may travel; "
                "store the data and send its id"
            )
        return wire

    def shown(self) -> dict[str, Any]:
        """Return the JSON values with every :class:`Hidden` field replaced by ``***``, for logs and listings."""
        return self.mask(self.to_wire())

    @classmethod
    def mask(cls, wire: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the values of hidden fields, and of those that the audit policy masks, by ``***``."""
        hidden = _hidden_fields(cls) | current_policy().masked_fields
        return {name: "***" if name in hidden else value for name, value in wire.items()}


@cache
def _hidden_fields(model: type[Payload]) -> frozenset[str]:
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if _is_hidden(field.metadata, field.annotation))


def _is_hidden(marks: Sequence[Any], annotation: Any) -> bool:
    """Look for the mark on the field, and inside its type: an alias, a union, a list."""
    if any(isinstance(mark, Hidden) for mark in marks):
        return True
    if isinstance(annotation, TypeAliasType):
        return _is_hidden((), annotation.__value__)
    if get_origin(annotation) is Annotated:
        inner, *inner_marks = get_args(annotation)
        return _is_hidden(inner_marks, inner)
    return any(_is_hidden((), part) for part in get_args(annotation))


def _invalid(model: type[Payload], error: ValidationError) -> InvalidPayloadError:
    faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in error.errors())
    known = ", ".join(model.model_fields) or "none"
    return InvalidPayloadError(f"{model.__name__}: {faults} (fields: {known})")
