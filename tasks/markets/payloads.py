"""Payloads of the market tasks."""

from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from taskyard import Payload

MarketId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\s\x00]([^\x00]*[^\s\x00])?$")]
Outcome = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]


class PriceQuote(BaseModel):
    """What one price source said, and when."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    source: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    price: Annotated[Decimal, Field(gt=0)]  # travels as text
    observed_at: AwareDatetime


class ResolveMarket(Payload):
    """The chain says that a market is decided; sent by the indexer."""

    market_id: MarketId
    winning_outcome: Outcome  # exactly as predicted, or VOID
    ledger: Annotated[int, Field(ge=0, lt=2**63)]  # block or ledger number of the event
    timestamp: AwareDatetime  # of the event
    quotes: Annotated[tuple[PriceQuote, ...], Field(max_length=100)] = ()  # for the oracle guard


class ConfirmPredictions(Payload):
    """One look for the transactions of pending predictions."""
