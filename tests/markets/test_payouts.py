"""The payouts: exact to the unit, for a table of cases and for any stakes."""

from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.markets.payouts import Settlement, Stake, settle_pool, split

outcomes = st.sampled_from(["yes", "no", "maybe"])
amounts = st.integers(min_value=0, max_value=2**256)
pools = st.lists(st.tuples(outcomes, amounts), max_size=40).map(
    lambda rows: [Stake(UUID(int=number), outcome, amount) for number, (outcome, amount) in enumerate(rows)]
)
fees = st.integers(min_value=0, max_value=10_000)


def stakes(*bets: tuple[str, int]) -> list[Stake]:
    return [Stake(UUID(int=number), outcome, amount) for number, (outcome, amount) in enumerate(bets)]


@pytest.mark.parametrize(
    ("bets", "fee_bp", "fee", "payouts"),
    [
        ((("yes", 10), ("no", 30)), 0, 0, [40]),  # 10 + 30
        ((("yes", 10), ("yes", 30), ("no", 40)), 0, 0, [20, 60]),  # 40 shared 1 : 3
        ((("yes", 1), ("yes", 1), ("no", 3)), 0, 0, [3, 2]),  # 3 shared 1 : 1 leaves 1, and it goes to the smaller id
        ((("yes", 1), ("yes", 2), ("no", 1)), 0, 0, [1, 3]),  # shares 1/3 and 2/3: the larger remainder gets the unit
        ((("yes", 10), ("no", 1000)), 250, 25, [985]),  # 2.5 % of 1000
        ((("yes", 10), ("no", 39)), 250, 0, [49]),  # 0.975 is rounded down
        ((("yes", 10), ("no", 7)), 10_000, 7, [10]),  # all of the gain is fee, the stake is not
        ((("yes", 5), ("yes", 0), ("no", 8)), 0, 0, [13, 0]),
        ((("yes", 5),), 100, 0, [5]),  # nobody lost
        ((("yes", 2**70), ("yes", 1), ("no", 2**65)), 0, 0, [2**70 + 2**65, 1]),
    ],
)
def test_winners_share_the_losers_stakes(
    bets: tuple[tuple[str, int], ...], fee_bp: int, fee: int, payouts: list[int]
) -> None:
    settled = settle_pool(stakes(*bets), "yes", fee_bp)

    assert (settled.kind, settled.fee, list(settled.payouts.values())) == ("shared", fee, payouts)


@pytest.mark.parametrize(
    ("bets", "outcome", "kind"),
    [
        ((("yes", 10), ("no", 30)), "VOID", "void"),
        ((("yes", 10), ("no", 30)), "maybe", "no_winner"),
        ((("yes", 10), ("no", 30)), "Yes", "no_winner"),  # compared letter by letter
        ((("yes", 0), ("no", 30)), "yes", "no_winner"),  # nothing was staked on the winner
        ((), "yes", "no_winner"),
    ],
)
def test_everybody_is_refunded_without_a_fee(bets: tuple[tuple[str, int], ...], outcome: str, kind: str) -> None:
    pool = sum(amount for _, amount in bets)

    assert settle_pool(stakes(*bets), outcome, 500) == Settlement(kind, pool, 0, {})  # type: ignore[arg-type]  # a table's texts


@given(pools, fees)
def test_payouts_and_fee_are_the_pool_to_the_unit(pool: list[Stake], fee_bp: int) -> None:
    settled = settle_pool(pool, "yes", fee_bp)

    paid = sum(settled.payouts.values()) if settled.kind == "shared" else settled.pool
    assert paid + settled.fee == settled.pool == sum(stake.amount for stake in pool)
    assert settled.paid == paid


@given(pools, fees)
def test_who_won_gets_the_stake_at_least_and_nobody_else_anything(pool: list[Stake], fee_bp: int) -> None:
    settled = settle_pool(pool, "yes", fee_bp)

    if settled.kind == "shared":
        winners = {stake.id: stake.amount for stake in pool if stake.outcome == "yes"}
        assert settled.payouts.keys() == winners.keys()
        assert all(settled.payouts[each] >= amount for each, amount in winners.items())


@given(st.integers(0, 2**200), st.lists(st.integers(0, 2**128), min_size=1, max_size=30).filter(any))
def test_each_part_is_its_exact_share_rounded_down_or_one_more(total: int, weights: list[int]) -> None:
    among = stakes(*[("yes", weight) for weight in weights])

    parts = split(total, among)

    for stake in among:
        exact = Fraction(total * stake.amount, sum(weights))
        assert 0 <= exact - parts[stake.id] + 1 <= 2
        assert parts[stake.id] in {int(exact), int(exact) + 1}
    assert sum(parts.values()) == total


@given(pools, fees, st.randoms())
def test_the_order_of_the_predictions_does_not_matter(pool: list[Stake], fee_bp: int, random: st.DataObject) -> None:
    shuffled = list(pool)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # it is a random.Random

    assert settle_pool(shuffled, "yes", fee_bp).payouts == settle_pool(pool, "yes", fee_bp).payouts


@pytest.mark.parametrize("fee_bp", [-1, 10_001])
def test_a_fee_outside_its_range_is_refused(fee_bp: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 10000"):
        settle_pool(stakes(("yes", 1)), "yes", fee_bp)


def test_a_negative_stake_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        settle_pool(stakes(("yes", -1)), "yes", 0)
