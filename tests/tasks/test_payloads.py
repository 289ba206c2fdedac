"""A payload is checked at the caller and at the worker, and shows nothing that is hidden."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.tasks.errors import InvalidPayloadError
from taskyard.tasks.payloads import MAX_BYTES, Hidden, Payload, Secret


class Transfer(Payload):
    """A payload with the types that JSON does not have."""

    id: UUID
    amount: Decimal
    at: datetime
    note: str = ""
    iban: Annotated[str, Hidden()] = ""
    token: Secret | None = None


def a_transfer(**changes: object) -> Transfer:
    return Transfer.checked(**{"id": uuid4(), "amount": Decimal("1.10"), "at": datetime.now(UTC), **changes})


@given(
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    at=st.datetimes(timezones=st.just(UTC)),
    note=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_what_travels_comes_back_the_same(amount: Decimal, at: datetime, note: str) -> None:
    sent = a_transfer(amount=amount, at=at, note=note)
    assert Transfer.from_wire(json.loads(json.dumps(sent.to_wire()))) == sent


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "id: Field required"),
        ({"id": "not-a-uuid"}, "id: Input should be a valid UUID"),
        ({"id": str(uuid4()), "amount": "1", "at": "2026-01-01T00:00:00Z", "extra": 1}, "extra: Extra inputs"),
        (
            {"id": str(uuid4()), "amount": "much", "at": "2026-01-01T00:00:00Z"},
            "amount: Input should be a valid decimal",
        ),
        (
            {"id": str(uuid4()), "amount": "1", "at": "2026-01-01T00:00:00Z", "note": 5},
            "note: Input should be a valid string",
        ),
        (
            {"id": str(uuid4()), "amount": "NaN", "at": "2026-01-01T00:00:00Z"},
            "amount: Input should be a finite number",
        ),
        ({"id": object()}, "Unable to serialize"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidPayloadError, match="Transfer: ") as caught:
        Transfer.from_wire(fields)
    assert says in str(caught.value)


def test_python_values_are_not_coerced_at_the_caller() -> None:
    """``.delay(id="...")`` is what mypy refuses, so the model does too; JSON text is for `apply_async` and `send`."""
    with pytest.raises(InvalidPayloadError, match="id: Input should be an instance of UUID"):
        a_transfer(id=str(uuid4()))


def test_an_error_does_not_repeat_the_value() -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        Transfer.from_wire({"token": 12345})
    assert "12345" not in str(caught.value)


def test_hidden_fields_are_masked_where_they_are_shown() -> None:
    shown = a_transfer(iban="DE02", token="s3cret", note="rent").shown()
    assert (shown["iban"], shown["token"], shown["note"]) == ("***", "***", "rent")


def test_a_payload_over_the_cap_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidPayloadError, match=rf"at most {MAX_BYTES} may travel"):
        a_transfer(note="x" * MAX_BYTES).to_wire()


class Anything(Payload):
    """A field without a shape."""

    value: Any


@pytest.mark.parametrize("depth", [210, 300])
def test_a_payload_that_no_worker_could_read_is_refused_where_it_is_enqueued(depth: int) -> None:
    value: Any = None
    for _ in range(depth):
        value = [value]
    with pytest.raises(InvalidPayloadError, match=r"Anything: .*; store the data and send its id"):
        Anything(value=value).to_wire()


def test_text_that_is_no_unicode_is_refused_where_it_is_enqueued() -> None:
    with pytest.raises(InvalidPayloadError, match="Anything: "):
        Anything(value="lone \ud800").to_wire()


@pytest.mark.parametrize("value", [math.nan, -math.inf, {"a": [math.nan]}])
def test_a_number_that_json_does_not_have_becomes_nothing_else(value: object) -> None:
    """It would travel as null."""
    with pytest.raises(InvalidPayloadError, match="Anything: "):
        Anything(value=value).to_wire()
