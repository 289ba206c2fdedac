"""Make `revoke` durable: each revocation broadcast to workers is also written to the messages."""

import json
from typing import Any

import redis

from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.scripts.runner import Keyspace, run_script

REMEMBERED_MS = 3 * 3600 * 1000  # for ids that have no message yet; Celery's own REVOKE_EXPIRES
CONTROL_SUFFIX = ".pidbox"  # of the exchange that carries Celery's remote control


def remember(client: redis.Redis, space: Keyspace, exchange: str, message: dict[str, Any]) -> list[str]:
    """
    Cancel what this broadcast revokes; returns the run ids, none for any other broadcast.

    Raises:
        redis.RedisError: The revocation could not be written, and was not broadcast either.
    """
    run_ids = _revoked(message) if exchange.endswith(CONTROL_SUFFIX) else []
    if run_ids:
        cancel(client, space, run_ids, by="revoke")
    return run_ids


def cancel(client: redis.Redis, space: Keyspace, run_ids: list[str], *, by: str, reason: str = "") -> dict[str, str]:
    """
    Mark runs as cancelled; returns where each was: waiting, delayed, active, dead or unknown.

    No worker starts them any more, even after a restart; one that has started goes on unless Celery terminates it.
    """
    answers = run_script(client, space, "cancel", detail(by=by, reason=reason), REMEMBERED_MS, *run_ids)
    return {
        run_id: answer.decode() if isinstance(answer, bytes) else answer
        for run_id, answer in zip(run_ids, answers, strict=True)
    }


def _revoked(message: dict[str, Any]) -> list[str]:
    if '"revoke"' not in str(message.get("body")):
        return []
    command = json.loads(message["body"])
    if command.get("method") != "revoke":
        return []
    named = command.get("arguments", {}).get("task_id") or []
    return [named] if isinstance(named, str) else [str(run_id) for run_id in named]
