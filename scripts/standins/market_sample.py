"""A small world of users, markets and predictions, the same for the same seed: for demos, trials and benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from sqlalchemy import insert
from sqlmodel import Session

from tasks.markets.models import IndexerEvent, Market, Prediction, Predictor

QUESTIONS = (
    "Will the rover reach the crater rim before March?",
    "Will the city open the new tram line this year?",
    "Will the home team win the spring final?",
    "Will the harvest exceed the five-year mean?",
    "Will the bridge carry traffic by midsummer?",
)
OUTCOMES = ("yes", "no")
OPENING = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
FEE_BP = 150
LARGEST_STAKE = 10**19  # more than 64 bits can hold
UNSEEN_SHARE = 0.05  # of the predictions, whose transactions never reached the chain


@dataclass(frozen=True, slots=True)
class Sample:
    """What was added."""

    market_ids: list[str]
    predictions: int
    unseen: int  # predictions without a transaction on the chain


def add_sample(
    session: Session, addresses: Sequence[str], *, markets: int = 5, predictions: int = 200, seed: int = 7
) -> Sample:
    """
    Add markets with pending predictions and the transactions that the indexer saw, in the caller's transaction.

    Args:
        session: On an empty or a used database; the sample's ids may be added once.
        addresses: Of the users who predict; they must fit the chain.
        markets: How many.
        predictions: In all.
        seed: The same seed gives the same rows.
    """
    random = Random(seed)  # noqa: S311 - a sample, not a secret
    users = [Predictor(id=_id(random), address=address, created_at=OPENING) for address in addresses]
    names = [f"sample-{number:03}" for number in range(markets)]
    session.add_all(users)
    session.add_all(
        Market(
            id=name,
            title=QUESTIONS[number % len(QUESTIONS)],
            outcomes=list(OUTCOMES),
            fee_bp=FEE_BP,
            created_at=OPENING + timedelta(minutes=number),
        )
        for number, name in enumerate(names)
    )
    session.flush()
    rows = [_prediction(random, users, names[number % markets], number) for number in range(predictions)]
    seen = [row for row in rows if random.random() >= UNSEEN_SHARE]
    if rows:
        session.execute(insert(Prediction), rows)
    session.add_all(
        IndexerEvent(ledger=1, tx_hash=str(row["tx_hash"]), op_index=0, kind="bet", seen_at=OPENING) for row in seen
    )
    return Sample(names, predictions, predictions - len(seen))


def _prediction(random: Random, users: Sequence[Predictor], market_id: str, number: int) -> dict[str, object]:
    return {
        "id": _id(random),
        "market_id": market_id,
        "user_id": random.choice(users).id,
        "outcome": random.choice(OUTCOMES),
        "amount": random.randrange(1, LARGEST_STAKE),
        "tx_hash": f"0x{random.getrandbits(256):064x}",
        "created_at": OPENING + timedelta(seconds=number),
        "next_look_at": OPENING + timedelta(seconds=number),
    }


def _id(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)
