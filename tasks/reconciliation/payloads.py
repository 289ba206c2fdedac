"""Payloads of the reconciliation tasks."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, StringConstraints, field_validator, model_validator

from taskyard import Payload

TYPES = ("global", "market")
FOR_A_MARKET = ("market_id", "admin_address", "ip", "correlation_id")

Text = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$", strip_whitespace=True)]


class Reconcile(Payload):
    """Compare one market, asked for by an administrator, or all of them."""

    type: str  # one of TYPES
    market_id: Text | None = None
    admin_address: Text | None = None  # who asks
    ip: Text | None = None  # from where
    correlation_id: Text | None = None

    @field_validator("type")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in TYPES:
            raise ValueError(f"unknown reconciliation type {value!r}, use global or market")
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        missing = [name for name in FOR_A_MARKET if not getattr(self, name)]
        if self.type == "market" and missing:
            raise ValueError(f"reconciliation of a market needs {', '.join(missing)}")
        if self.type == "global" and self.market_id is not None:
            raise ValueError("a global reconciliation takes no market_id; use type market for one market")
        return self


class CheckMarket(Payload):
    """One market of a global run."""

    report_id: UUID
    market_id: Annotated[str, Field(min_length=1, max_length=255)]


class FinishReport(Payload):
    """Sum up a global run whose markets have ended."""

    report_id: UUID


class SweepReconciliations(Payload):
    """Remove old reports."""
