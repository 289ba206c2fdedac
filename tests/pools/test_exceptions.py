"""What a handler raises keeps its class, text and reason on the way to its dead letter, in every pool."""

import pickle
from typing import Any

import pytest

from taskyard.broker.worker.portable_errors import dead_letter_reason, error_name, error_text, portable
from tests.pools import failing
from tests.pools.site import LIMIT, POOLS, Site
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("pool", POOLS)
def test_a_dead_letter_names_what_was_raised_whatever_its_constructor(site: Site, pool: str) -> None:
    site.worker(pool, 2, module="tests.pools.failing")
    sent = {failing.throw.delay(label=kind).id: kind for kind in failing.FOUND}
    site.wait_letters(len(sent))
    found = {
        sent[letter.run_id]: (letter.error_type, letter.error_message, letter.reason, site.notes("try").count(kind))
        for letter in site.dead_letters()
        for kind in [sent[letter.run_id]]
    }
    assert found == failing.FOUND


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_event_of_a_plain_tasks_failure_names_it_as_well(site: Site, pool: str) -> None:
    site.worker(pool, 2, module="tests.pools.failing")
    sent = {failing.plain.delay(label=kind).id: kind for kind in failing.FOUND if kind not in {"text", "none"}}
    wait_for(lambda: len(site.failures()) == len(sent), LIMIT, "all have failed", lambda: str(site.failures()))
    found = {sent[run_id]: facts for run_id, facts in site.failures().items()}
    assert found == {kind: failing.FOUND[kind][:2] for kind in sent.values()}


@pytest.mark.parametrize("kind", [kind for kind in failing.FOUND if kind not in {"text", "none"}])
def test_pickling_changes_nothing(kind: str) -> None:
    error: Any = failing.ERRORS[kind]()
    copy = pickle.loads(pickle.dumps(portable(error)))  # noqa: S301 - what was just dumped
    assert (error_name(copy), error_text(copy), dead_letter_reason(copy)) == failing.FOUND[kind][:3]
    if kind == "api":
        assert copy.code == 502
