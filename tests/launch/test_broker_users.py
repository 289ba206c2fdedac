"""Users of the broker with the least rights: what one lacks is said in one line."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from taskyard.broker.server.rights import Role, acl_rules, missing_rights, rights_problem
from tests.cli.celery_command import CeleryCommand
from tests.databases import DatabaseServers, database_servers
from tests.servers import Server
from tests.workers import ROOT

__all__ = ["database_servers"]
pytestmark = pytest.mark.timeout(400)
ROLES: tuple[Role, ...] = ("producer", "worker", "operator")

type UrlOf = Callable[[Role], str]


@pytest.fixture
def database(database_servers: DatabaseServers) -> Iterator[str]:
    """A migrated database."""
    url = database_servers.make("sqlite")
    yield url
    database_servers.drop(url)


@contextmanager
def users_of(server: Server, rules: Callable[[Role], str]) -> Iterator[UrlOf]:
    """A user for each role; the default user stays the test's own."""
    with server.client() as client:
        for role in ROLES:
            client.execute_command("ACL", "SETUSER", role, "reset", "on", ">secret", *rules(role).split())
        yield lambda role: f"redis://{role}:secret@127.0.0.1:{server.port}/0"
        client.execute_command("ACL", "DELUSER", *ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_the_documented_rules_are_those_of_the_code(role: Role) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    assert f"\nACL SETUSER taskyard-{role} on >SECRET {acl_rules(role)}\n" in text


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ("-zadd", "zadd on taskyard:probe"),
        ("-xgroup|create", "xgroup|create on taskyard:probe"),
        ("resetchannels &/taskyard:0.*", "psubscribe on /taskyard:0.celery.pidbox"),
        ("-subscribe", "subscribe on taskyard:celery-task-meta-probe"),
    ],
)
def test_a_missing_right_is_named(broker_server: Server, change: str, lacking: str) -> None:
    rules = users_of(broker_server, lambda role: f"{acl_rules(role)} {change}")
    with rules as url_of, redis.Redis.from_url(url_of("worker")) as client:
        assert lacking in [str(need) for need in missing_rights(client, "taskyard:", 0, "worker")]
        problem = rights_problem(client, "taskyard:", "worker") or ""
    assert problem.startswith("the broker user 'worker' lacks rights of the role worker: ")
    assert problem.endswith("docs/deployment.md, Users of the broker, has the rules")


def test_other_keys_are_out_of_reach_and_no_eval_is_said(broker_server: Server) -> None:
    rules = users_of(broker_server, lambda role: f"{acl_rules(role)} -eval -evalsha")
    with rules as url_of, redis.Redis.from_url(url_of("worker")) as client:
        problem = rights_problem(client, "taskyard:", "worker")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("foreign", "1")
    assert re.match(r"the broker refuses its user 'worker': .*'eval(sha)?' command; docs/deployment\.md", problem or "")


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_a_process_that_lacks_a_right_does_not_start(
    valkey: Server, database: str, tmp_path: Path, program: str
) -> None:
    with users_of(valkey, lambda role: f"{acl_rules(role)} -xadd -zpopmin") as url_of:
        env = {"DATABASE_URL": database, "TASKYARD_DATA": str(tmp_path), "REDIS_URL": url_of("worker")}
        answer = CeleryCommand(env)(program)
        doctor = CeleryCommand({**env, "REDIS_URL": url_of("operator")})("doctor")
    line = "the broker user 'worker' lacks rights of the role worker: xadd on taskyard:probe, zpopmin on taskyard:probe"
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith(f"Error: {line}")
    assert re.search(r"fault +broker rights", doctor.out), doctor.out
    assert "the broker user 'operator' lacks rights of the role operator: xadd" in doctor.out
