"""The flow of the demo: an order is reserved, charged and shipped, or nothing of it is."""

from pathlib import Path

from taskyard import DEFAULT, Flow, Payload, PermanentError, result_of, task


class Order(Payload):
    """An order of the demo."""

    order_id: str
    courier_key: str  # path of a file; without it nothing can be shipped


@task("demo.reserve", Order, queue=DEFAULT)
def reserve(payload: Order) -> str:
    """Set the goods aside; twice is the same shelf."""
    return f"shelf of {payload.order_id}"


@task("demo.release", Order, queue=DEFAULT)
def release(_payload: Order) -> None:
    """Put the goods back."""


@task("demo.charge", Order, queue=DEFAULT)
def charge(payload: Order) -> str:
    """Charge the card, once for each order."""
    return f"charge of {payload.order_id}"


@task("demo.refund", Order, queue=DEFAULT)
def refund(_payload: Order) -> str:
    """Give the money back."""
    return f"refund of {result_of('charge', str)}"


@task("demo.ship", Order, queue=DEFAULT)
def ship(payload: Order) -> str:
    """
    Send it.

    Raises:
        PermanentError: There is no key for the courier.
    """
    if not Path(payload.courier_key).exists():
        raise PermanentError("the courier's key is missing")
    return f"sent from {result_of('reserve', str)}"


def order_flow(order: Order) -> Flow:
    """Return the definition; of each order there is one flow."""
    flow = Flow("demo.order", key=f"order:{order.order_id}")
    reserved = flow.step("reserve", reserve, order, undo=(release, order))
    charged = flow.step("charge", charge, order, after=[reserved], undo=(refund, order))
    flow.step("ship", ship, order, after=[charged])
    return flow
