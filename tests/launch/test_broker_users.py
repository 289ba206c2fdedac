"""Users with the least rights, and servers that refuse what managed ones do: all works, or one line says why not."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from taskyard.broker.server.rights import Role, acl_rules, missing_rights, rights_problem
from tests.cli.celery_command import APP, CeleryCommand, ended
from tests.databases import DatabaseServers, database_servers
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, ROOT, Worker

__all__ = ["database_servers"]
pytestmark = pytest.mark.timeout(400)
LIMIT = 90  # seconds; the machine may be busy
ROLES: tuple[Role, ...] = ("producer", "worker", "operator")
MANAGED = ("config", "script", "client", "keys", "scan", "info", "flushall", "flushdb", "slowlog", "monitor", "memory")

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


def works(url_of: UrlOf, database: str, folder: Path) -> str:
    """Run a worker, beat, a producer that waits for a result, and commands; returns what `doctor` printed."""
    common = {"DATABASE_URL": database, "TASKYARD_DATA": str(folder)}
    producer, operator, beat = (
        CeleryCommand({**common, "REDIS_URL": url_of(role)}) for role in ("producer", "operator", "worker")
    )
    env = {**common, "REDIS_URL": url_of("worker")}
    log = folder / "beat.log"
    scheduler = beat.start("beat", "--logfile", str(log))
    try:
        with Worker(APP, folder, arguments=("-P", "threads", "-c", "2", *MINIMAL), env=env) as worker:
            sent = producer("call", "records.greet", "--kwargs", '{"name": "world"}')
            assert sent.code == 0, sent.err
            run = sent.out.strip()
            shown: dict[str, str] = {}

            def is_recorded() -> bool:
                answer = operator("jobs", "show", run, "--json")
                shown.update(answer.json if answer.code == 0 else {})
                return shown.get("state") == "succeeded"

            wait_for(is_recorded, LIMIT, "the run is recorded", worker.tail)
            for words in (
                ("jobs", "ls"),
                ("queues", "ls"),
                ("queues", "pause", "celery"),
                ("queues", "resume", "celery"),
            ):
                answer = operator(*words)
                assert answer.code == 0, answer.err
            assert "pong" in operator("inspect", "ping").out
            doctor = operator("doctor")
            wait_for(lambda: log.exists() and "beat.leads" in log.read_text(), LIMIT, "beat leads", log.read_text)
            assert "ERROR" not in worker.log.read_text()
            assert "NOPERM" not in worker.log.read_text() + log.read_text()
    finally:
        scheduler.terminate()
        ended(scheduler)
    return doctor.out + doctor.err


def test_each_role_works_with_the_documented_rights(broker_server: Server, database: str, tmp_path: Path) -> None:
    with users_of(broker_server, acl_rules) as url_of:
        report = works(url_of, database, tmp_path)
    assert re.search(r"ok +broker rights +all that an operator needs", report)


def test_nothing_that_managed_servers_refuse_is_needed(valkey: Server, database: str, tmp_path: Path) -> None:
    refused = " ".join(f"-{command}" for command in MANAGED)
    with users_of(valkey, lambda _: f"+@all ~* &* {refused}") as url_of:
        report = works(url_of, database, tmp_path)
    assert "INFO is refused" in report


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
