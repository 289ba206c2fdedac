"""Two projects with one prefix on one broker: the second is told so, and nothing of the two mixes."""

import shutil
from collections.abc import Mapping

import pytest

from tests.identity.conftest import MakeProject
from tests.identity.project import Project
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 60  # seconds
pytestmark = pytest.mark.timeout(240)  # each is several `celery` calls of 2 s of CPU


def owner(server: Server) -> Mapping[str, str]:
    with server.client() as client:
        told: Mapping[str, str] = client.hgetall("taskyard:platform")
    return told


def messages(server: Server) -> list[str]:
    with server.client() as client:
        return [*client.scan_iter("*message:*")]


def says_so(text: str, first: Project, second: Project) -> bool:
    """One line names both, and what to do."""
    words = (f"app '{first.name}' with sqlite:///{first.database}", f"app '{second.name}' with", "TASKYARD_KEY_PREFIX")
    return any(all(word in line for word in words) for line in text.splitlines())


def test_the_second_project_neither_starts_nor_publishes(make_project: MakeProject, valkey: Server) -> None:
    shop, blog = make_project("shop"), make_project("blog")
    shop.worker()
    assert owner(valkey)["name"].startswith("app 'shop' with")
    for words in (("worker",), ("beat",), ("up", "--no-flower"), ("audit", "write")):
        ended = blog.ends_by_itself(*words)
        assert ended.code != 0, words
        assert says_so(ended.err, shop, blog), (words, ended.err)
    refused = blog.sends()
    assert (refused.code, says_so(refused.err, shop, blog)) == (1, True), refused.err
    assert messages(valkey) == []
    assert blog("queues", "pause", "celery", "--reason", "r").code == 2
    assert (blog.doctor()["verdict"], shop.doctor()["verdict"]) == ("fault", "ok")
    assert shop.sends().code == 0
    assert blog.sends(TASKYARD_KEY_PREFIX="blog:").code == 0
    blog.worker(TASKYARD_KEY_PREFIX="blog:")


def test_a_flushed_broker_is_claimed_again_by_who_runs(make_project: MakeProject, valkey: Server) -> None:
    shop = make_project("shop")
    worker = shop.worker()
    before = owner(valkey)
    with valkey.client() as client:
        client.flushall()
    wait_for(lambda: owner(valkey) == before, LIMIT, "it claims the broker again", worker.tail)
    assert shop.sends().code == 0
    assert worker.is_running


def test_a_restored_database_and_a_moved_one_are_the_same_platform(make_project: MakeProject, valkey: Server) -> None:
    shop = make_project("shop")
    shop.worker().stop()
    backup = shop.folder / "backup.db"
    shutil.copy(shop.database, backup)
    shop.database.unlink()
    shop.database = shop.folder / "elsewhere.db"
    shutil.copy(backup, shop.database)
    shop.worker()
    assert owner(valkey)["name"].endswith("elsewhere.db")
    assert shop.sends().code == 0


def test_an_operator_adopts_the_broker_for_a_new_database(make_project: MakeProject, valkey: Server) -> None:
    """As after a move from SQLite to PostgreSQL: what waits stays, and workers of the old one end."""
    shop, blog = make_project("shop"), make_project("blog")
    worker = shop.worker()
    confirmed = ("db", "adopt-broker", "--yes", "--reason", "moved")
    in_use = blog(*confirmed)
    assert (in_use.code, "stop them first" in in_use.err) == (1, True), in_use.err
    assert blog("db", "adopt-broker").code == 2
    with valkey.client() as client:
        client.hset("taskyard:platform", mapping={"id": "another", "name": "another"})
    assert worker.wait_ended(LIMIT) == 1
    assert "platform.other" in worker.tail()
    wait_for(lambda: blog("db", "adopt-broker", "--dry-run").code == 0, LIMIT, "nobody uses the broker")
    assert owner(valkey)["id"] == "another"
    adopted = blog(*confirmed)
    assert (adopted.code, "it was of another" in adopted.out) == (0, True), adopted.err
    assert owner(valkey)["name"].startswith("app 'blog' with")
    assert blog.sends().code == 0
    assert [row["verb"] for row in blog("audit", "ls", "--json").json["items"]] == ["db adopt-broker", "db upgrade"]


def test_a_producer_without_a_database_publishes(make_project: MakeProject, valkey: Server) -> None:
    """Publishing needs no database; it makes no file, and claims nothing."""
    shop = make_project("shop")
    for url in ("sqlite:///no.db", "postgresql://127.0.0.1:1/none"):
        sent = shop.sends(DATABASE_URL=url)
        assert sent.code == 0, sent.err
    assert not (shop.folder / "no.db").exists()
    assert owner(valkey) == {}
