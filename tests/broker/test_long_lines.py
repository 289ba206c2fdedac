"""Many waiting messages: what a script does is counted, not timed; and what a message weighs."""

from typing import Any

import pytest
import redis

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.protocol.envelope import put_fields
from taskyard.broker.scripts.runner import run_script
from tests.broker.script_driver import ScriptDriver

pytestmark = pytest.mark.timeout(300)
AT_ONCE = 1000  # messages per call
LOGARITHMIC = {  # O(log n) at most in the length of a line, with the bounded ranges that the scripts ask for
    "time", "get", "set", "del", "exists", "incr", "pexpire", "hget", "hmget", "hset", "hgetall", "hincrby", "scard",
    "sadd", "srem", "zadd", "zcard", "zcount", "zpopmin", "zrange", "zrangebyscore", "zrank", "zrem", "zscore", "xadd",
    "mget",  # as many as were taken
    "zremrangebyscore",  # of workers that are gone
}  # fmt: skip
OURS = {"evalsha", "eval", "info", "config", "client", "hello", "select", "auth", "script", "ping"}


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command ran since the last reset."""
    stats: Any = client.info("commandstats")
    names = {name.removeprefix("cmdstat_").split("|")[0]: int(fact["calls"]) for name, fact in stats.items()}
    return {name: count for name, count in names.items() if name not in OURS}


def calls_of_one_round(driver: ScriptDriver) -> dict[str, int]:
    """The commands of a count, a take of ten, a renewal, a look, ten acks, and of the put of ten."""
    driver.client.config_resetstat()
    driver.control.counts("q")
    taken = driver.take(10)
    driver.renew(*taken)
    driver.control.explain(taken[0].run_id)
    for one in taken:
        assert driver.done(one)
    put_many(driver, 10)
    return calls(driver.client)


def put_many(driver: ScriptDriver, count: int) -> None:
    """Put as `enqueue_many` does; every second message belongs to one of fifty groups."""
    for start in range(0, count, AT_ONCE):
        arguments: list[Any] = []
        for number in range(start, min(count, start + AT_ONCE)):
            facts: dict[str, Any] = {"group_key": f"g{number % 50}"} if number % 2 else {}
            arguments += put_fields("q", driver.envelope(driver.next_id(), **facts))
        run_script(driver.client, driver.space, "put", *arguments)


def check_costs(driver: ScriptDriver, waiting: int) -> None:
    """So many waiting messages cost not one command more than a hundred."""
    put_many(driver, 100)
    few = calls_of_one_round(driver)
    put_many(driver, waiting)
    assert calls_of_one_round(driver) == few
    assert set(few) <= LOGARITHMIC
    counts = driver.control.counts("q")
    assert (counts.waiting, counts.active) == (waiting + 100, 0)


def test_ten_thousand_waiting_messages_cost_no_command_more(driver: ScriptDriver) -> None:
    check_costs(driver, 10_000)


@pytest.mark.chaos
def test_a_hundred_thousand_waiting_messages_cost_no_command_more(driver: ScriptDriver) -> None:
    check_costs(driver, 100_000)


def test_a_waiting_message_weighs_its_payload_and_less_than_a_kilobyte(driver: ScriptDriver) -> None:
    """A real Celery message of one keyword argument; the event in the stream comes on top, see docs/broker.md."""
    driver.space = driver.space._replace(writes_events=False)
    driver.put(driver.next_id())
    before = _used(driver.client)
    for start in range(0, 10_000, AT_ONCE):
        arguments = [argument for number in range(start, start + AT_ONCE) for argument in _celerys_words(number)]
        run_script(driver.client, driver.space, "put", *arguments)
    weight = (_used(driver.client) - before) / 10_000
    payload = len(str(_celerys_words(0)[3]))
    print(f"{weight:.0f} bytes, of which the payload is {payload}")  # noqa: T201 - for docs/broker.md, with -s
    assert weight - payload < 1024


def test_a_line_that_is_empty_again_keeps_no_memory(driver: ScriptDriver) -> None:
    driver.space = driver.space._replace(writes_events=False)
    control = QueueControl(driver.client, writes_events=False)
    used = []
    for _ in range(3):
        put_many(driver, 5_000)
        assert control.drain("q") == 5_000
        assert driver.all_keys() == set()
        used.append(_used(driver.client))
    assert used[-1] - used[0] < 400_000  # buffers of connections vary; one lost key per message would be over 500 kB


def _used(client: redis.Redis) -> int:
    memory: Any = client.info("memory")
    return int(memory["used_memory_dataset"])


def _celerys_words(number: int) -> tuple[Any, ...]:
    run_id = f"5b3c2f0e-7a53-4a0c-9c55-{number:012d}"
    body = '[[], {"delivery_id": "5b3c2f0e-7a53-4a0c-9c55-0d2b3f7a9f11"}, {"callbacks": null, "errbacks": null}]'
    message = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": "webhooks.deliver", "id": run_id, "shadow": None, "eta": None, "expires": None,
            "group": None, "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": run_id,
            "parent_id": None, "argsrepr": "()", "kwargsrepr": "{'delivery_id': '...'}", "origin": "gen1@host",
            "ignore_result": True, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
            "taskyard": {"attempt": 1, "max_attempts": 6},
        },
        "properties": {
            "correlation_id": run_id, "reply_to": run_id, "delivery_mode": 2, "delivery_tag": run_id.replace("-", ""),
            "delivery_info": {"exchange": "", "routing_key": "webhooks"}, "priority": 5, "body_encoding": "utf-8",
        },
    }  # fmt: skip
    return put_fields("q", message)
