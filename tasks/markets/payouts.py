"""The arithmetic of a resolved market: who gets how much, exact to the smallest unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from tasks.markets.models import VOID

FULL = 10_000  # basis points


class Stake(NamedTuple):
    """One confirmed prediction; the amount is in smallest units, at least 0."""

    id: UUID
    outcome: str
    amount: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """
    What a pool is split into.

    For kind ``shared``, ``payouts`` holds the winners and everybody else gets nothing; for ``void`` and ``no_winner``
    everybody gets the stake back and ``payouts`` is empty, for it would repeat the stakes.
    """

    kind: Literal["shared", "void", "no_winner"]
    pool: int
    fee: int
    payouts: dict[UUID, int]

    @property
    def paid(self) -> int:
        """What all predictions get together; with the fee it is the pool."""
        return self.pool - self.fee


def settle_pool(stakes: Sequence[Stake], winning_outcome: str, fee_bp: int) -> Settlement:
    """
    Split the pool: a winner gets the stake and a share of the losers' stakes, in proportion to the stake.

    The fee is that share of the losers' stakes, rounded down, so nobody who won gets less than the stake. With the
    outcome ``VOID``, or when nothing was staked on the winner, all stakes go back without a fee.

    >>> a, b, c = (UUID(int=n) for n in (1, 2, 3))
    >>> stakes = [Stake(a, "yes", 1), Stake(b, "yes", 1), Stake(c, "no", 101)]
    >>> settle_pool(stakes, "yes", fee_bp=0).payouts == {a: 52, b: 51}
    True

    Args:
        stakes: All confirmed predictions of the market.
        winning_outcome: Compared letter by letter.
        fee_bp: 0-10000, in 1/10000 of the losers' stakes.

    Raises:
        ValueError: A negative stake or a fee outside its range.
    """
    if not 0 <= fee_bp <= FULL:
        raise ValueError(f"a fee of {fee_bp}/10000 is not between 0 and 10000")
    if any(stake.amount < 0 for stake in stakes):
        raise ValueError("a stake is negative")
    pool = sum(stake.amount for stake in stakes)
    if winning_outcome == VOID:
        return Settlement("void", pool, 0, {})
    winners = [stake for stake in stakes if stake.outcome == winning_outcome]
    on_winner = sum(stake.amount for stake in winners)
    if on_winner == 0:
        return Settlement("no_winner", pool, 0, {})
    lost = pool - on_winner
    fee = lost * fee_bp // FULL
    gains = split(lost - fee, winners)
    return Settlement("shared", pool, fee, {stake.id: stake.amount + gains[stake.id] for stake in winners})


def split(total: int, among: Sequence[Stake]) -> dict[UUID, int]:
    """
    Split a total in proportion to the stakes, by largest remainder; equal remainders go to the smaller id.

    The parts are whole and sum to the total; each is its exact share rounded down, or one more.

    Source: the method of Hamilton, for apportionment.
    """
    weight = sum(stake.amount for stake in among)
    parts: dict[UUID, int] = {}
    remainders: list[tuple[int, UUID]] = []
    for stake in among:
        parts[stake.id], remainder = divmod(total * stake.amount, weight)
        remainders.append((-remainder, stake.id))
    left = total - sum(parts.values())
    if left:
        for _, stake_id in sorted(remainders)[:left]:
            parts[stake_id] += 1
    return parts
