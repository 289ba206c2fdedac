"""Declaring a task: what cannot be one is refused in one clear line, where it is declared."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload


class Empty(Payload):
    """Nothing."""


def handle(_payload: Empty) -> None:
    """Do nothing."""


class Called:
    """An object that can be called."""

    def __call__(self, _payload: Empty) -> None:
        """Do nothing."""


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "a\nb", "a b", ".hidden", "käse", "a\x00"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="use 1-255 letters, digits") as refused:
        task(name, Empty, queue=DEFAULT)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", ["a", "0.1", "shop.orders:ship-now_2", "x" * 255])
def test_usual_names_are_taken(name: str) -> None:
    assert task(name, Empty, queue=DEFAULT)(handle).name == name


@pytest.mark.parametrize("handler", [lambda _payload: None, partial(handle), Called(), print, "handle"])
def test_a_handler_without_a_name_is_refused(handler: Any) -> None:
    declare: Callable[[Any], Any] = task("tests.nameless", Empty, queue=DEFAULT)
    with pytest.raises(TypeError, match=r"'tests.nameless': its handler is a function made by def or async def, not"):
        declare(handler)


@pytest.mark.parametrize("payload", [dict, Empty(), None, "Empty"])
def test_a_payload_that_is_no_model_is_refused(payload: Any) -> None:
    with pytest.raises(TypeError, match="not a subclass of Payload"):
        task("tests.wrong_payload", payload, queue=DEFAULT)
