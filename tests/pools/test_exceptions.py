"""What a handler raises keeps its class, text and reason on the way to its dead letter, in every pool."""

import pickle
from typing import Any

import pytest

from taskyard.broker.worker.portable_errors import dead_letter_reason, error_name, error_text, portable
from tests.pools import failing_app
from tests.pools.pool_platform import LIMIT, POOLS, PoolPlatform
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("pool", POOLS)
def test_a_dead_letter_names_what_was_raised_whatever_its_constructor(platform: PoolPlatform, pool: str) -> None:
    platform.worker(pool, 2, module="tests.pools.failing_app")
    sent = {failing_app.throw.delay(label=kind).id: kind for kind in failing_app.FOUND}
    platform.wait_dead_letters(len(sent))
    found = {
        sent[letter.run_id]: (
            letter.error_type,
            letter.error_message,
            letter.reason,
            platform.notes("try").count(kind),
        )
        for letter in platform.buried()
        for kind in [sent[letter.run_id]]
    }
    assert found == failing_app.FOUND


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_event_of_a_plain_tasks_failure_names_it_as_well(platform: PoolPlatform, pool: str) -> None:
    platform.worker(pool, 2, module="tests.pools.failing_app")
    sent = {failing_app.plain.delay(label=kind).id: kind for kind in failing_app.FOUND if kind not in {"text", "none"}}
    wait_for(
        lambda: len(platform.failures()) == len(sent),
        LIMIT,
        "all have failed",
        lambda: str(platform.failures()),
    )
    found = {sent[run_id]: facts for run_id, facts in platform.failures().items()}
    assert found == {kind: failing_app.FOUND[kind][:2] for kind in sent.values()}


@pytest.mark.parametrize("kind", [kind for kind in failing_app.FOUND if kind not in {"text", "none"}])
def test_pickling_changes_nothing(kind: str) -> None:
    error: Any = failing_app.ERRORS[kind]()
    copy = pickle.loads(pickle.dumps(portable(error)))  # noqa: S301 - what was just dumped
    assert (error_name(copy), error_text(copy), dead_letter_reason(copy)) == failing_app.FOUND[kind][:3]
    if kind == "api":
        assert copy.code == 502
