"""What `doctor` says of the broker: its configuration, its memory, and the rights of our user."""

from collections.abc import Iterator
from typing import Any

import redis

from taskyard.broker.server.rights import rights_problem
from taskyard.findings import Finding
from taskyard.monitor.background_collector import broker_memory, is_refused
from taskyard.settings.platform import Settings

MIB = 2**20
NEARLY_FULL = 0.8  # of the broker's memory; as in dashboards/taskyard.rules.yml


def check_broker(client: redis.Redis) -> Iterator[Finding]:
    """Look at version, append-only file, eviction and memory; INFO tells them, and a managed server may refuse it."""
    try:
        yield from _configuration(client)
    except redis.ResponseError as error:
        if not is_refused(error):
            raise
        client.time()  # it answers
        note = "it answers; INFO is refused: version, append-only file, eviction and memory cannot be seen"
        yield Finding("broker", "warning", note, "check appendonly yes and maxmemory-policy noeviction at its provider")


def _configuration(client: Any) -> Iterator[Finding]:
    server = client.info("server")
    name = "Valkey" if server.get("server_name") == "valkey" or "valkey_version" in server else "Redis"
    yield Finding("broker", "ok", f"{name} {server.get('valkey_version') or server['redis_version']}")
    if client.info("persistence")["aof_enabled"]:
        yield Finding("append-only file", "ok", "on")
    else:
        fix = "set appendonly yes: without it a restart of the broker loses the messages of its last minutes"
        yield Finding("append-only file", "fault", "off", fix)
    policy = client.info("memory").get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        yield Finding("eviction", "ok", "noeviction")
    else:
        fix = "set maxmemory-policy noeviction: any other one deletes messages when memory is short"
        yield Finding("eviction", "fault", policy, fix)
    yield _memory(*broker_memory(client))


def _memory(used: int, limit: int) -> Finding:
    if not limit:
        return Finding("memory", "ok", f"{used / MIB:.0f} MiB, no limit (maxmemory 0)")
    note = f"{used / MIB:.0f} of {limit / MIB:.0f} MiB, {used / limit:.0%}"
    fix = "add workers, check the audit backlog, or raise maxmemory: a full broker refuses new tasks"
    if used >= limit:
        return Finding("memory", "fault", note, fix)
    return Finding("memory", "warning", note, fix) if used > NEARLY_FULL * limit else Finding("memory", "ok", note)


def check_rights(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Ask the broker whether our user may do what an operator needs."""
    if settings.taskyard_transport == "redis":
        return
    problem = rights_problem(client, settings.taskyard_key_prefix, "operator")
    if problem is None:
        yield Finding("broker rights", "ok", "all that an operator needs")
    else:
        note, _, fix = problem.rpartition("; ")
        yield Finding("broker rights", "fault", note, fix)
