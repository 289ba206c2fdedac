"""Results of runs that were sent by name: kept without being asked for, as Celery's own default is."""

import pytest

from tests.pools.app import app, nap
from tests.pools.pool_platform import LIMIT, PoolPlatform

pytestmark = pytest.mark.timeout(300)


def test_a_run_that_was_sent_by_name_has_a_result(platform: PoolPlatform) -> None:
    """The task's own default is none: whoever waited for the result waited for ever."""
    platform.worker()
    by_name = app.send_task("pools.nap", kwargs={"label": "by name"})
    failing = app.send_task("pools.nap", kwargs={"label": 7})
    by_task = nap.delay(label="by task")
    assert by_name.get(timeout=LIMIT) is None
    assert by_name.state == "SUCCESS"
    with pytest.raises(Exception, match="label: Input should be a valid string"):
        failing.get(timeout=LIMIT)
    assert by_task.get(timeout=1) is None, "it says at once that there is none"
    assert platform.wait_notes("end", 2)
    assert by_task.state == "PENDING"
