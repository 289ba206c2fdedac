"""One verification of a target at a time; what a lost worker leaves behind heals by itself."""

import shutil
import threading
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import update

from tasks.backups.checks.verification_report import VerificationReport
from tasks.backups.errors import InfrastructureError
from tasks.backups.handlers import VerificationResult
from tasks.backups.models import BackupLease
from tasks.backups.restore.scratch_database import KEEPER, scratch_name
from tasks.backups.restore.server_address import parse_address
from tasks.backups.store import BackupStore, LeaseRefusal, TargetLease
from tasks.backups.target_lease import renewing_lease
from taskyard.database.columns import utc_now
from taskyard.tasks.errors import Snooze
from tests.backups.backup_target import SHOP_PROFILE, BackupTarget
from tests.backups.shop_server import NAPS, ShopServer
from tests.databases import Database
from tests.waiting import stays_true, wait_for


def a_store(database: Database, lease_time: timedelta = timedelta(seconds=30)) -> BackupStore:
    return BackupStore(database.session, lambda _session, _finished: None, lease_time)


def taken(store: BackupStore, holder: str = "one") -> TargetLease:
    lease = store.take_lease("shop", holder)
    assert isinstance(lease, TargetLease)
    return lease


def let_run_out(database: Database) -> None:
    with database.session() as session, session.begin():
        session.execute(update(BackupLease).values(until=utc_now() - timedelta(seconds=1)))


def test_of_ten_that_ask_at_once_one_gets_the_lease(database: Database) -> None:
    store, answers, together = a_store(database), [], threading.Barrier(10)

    def ask(number: int) -> None:
        together.wait()
        answers.append(store.take_lease("shop", f"holder-{number}"))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leases = [answer for answer in answers if isinstance(answer, TargetLease)]
    assert (len(answers), len(leases)) == (10, 1)
    assert {answer.holder for answer in answers} == {leases[0].holder}


def test_a_lease_that_was_given_back_or_ran_out_is_free_again(database: Database) -> None:
    store = a_store(database)
    store.release(taken(store, "one"))
    lost = taken(store, "two")
    let_run_out(database)
    assert not store.renew(lost)
    new = taken(store, "three")
    store.release(lost)  # must not take it from its new holder
    held = store.take_lease("shop", "four")
    assert isinstance(held, LeaseRefusal)
    assert held.holder == "three"
    assert store.renew(new)


def test_targets_do_not_wait_for_each_other(database: Database) -> None:
    store = a_store(database)
    taken(store)
    assert isinstance(store.take_lease("other", "two"), TargetLease)


def test_a_lease_is_renewed_while_the_work_lasts(database: Database) -> None:
    store = a_store(database, timedelta(seconds=0.6))
    with renewing_lease(store, taken(store), 0.6) as guard:
        stays_true(lambda: isinstance(store.take_lease("shop", "two"), LeaseRefusal), 1.5, "the lease is held")
        assert guard.holds()
    assert isinstance(store.take_lease("shop", "two"), TargetLease)


def test_a_holder_learns_that_it_lost_its_lease(database: Database) -> None:
    store = a_store(database)
    with renewing_lease(store, taken(store), 0.3) as guard:
        let_run_out(database)
        taken(store, "two")
        wait_for(lambda: not guard.holds(), 5, "it learns that the lease is lost")
    assert isinstance(store.take_lease("shop", "three"), LeaseRefusal), "the new holder keeps it"


def test_two_at_once_one_runs_and_the_other_says_so(backup_target: BackupTarget, shop_server: ShopServer) -> None:
    with shop_server.changed_shop(NAPS) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    backup_target.write_profile(SHOP_PROFILE, restore_timeout='"2s"')
    results: list[VerificationResult] = []
    first = threading.Thread(target=lambda: results.append(backup_target.verify(holder="first")))
    first.start()
    wait_for(shop_server.scratch_databases, 30, "the first one restores")
    second = backup_target.verify(holder="second")
    assert (second.state, second.reason) == ("skipped", "being verified by first")
    assert len(shop_server.scratch_databases()) == 1
    first.join()
    assert [result.state for result in results] == ["failed"]
    assert len(backup_target.runs()) == 1


def test_the_same_task_again_waits_until_the_lease_of_its_lost_worker_ends(
    backup_target: BackupTarget, shop_dumps: dict[str, Path]
) -> None:
    """The message of a killed worker comes back, perhaps before the lease has run out: it must not be dropped."""
    shutil.copy(shop_dumps["custom"], backup_target.dumps / "shop.dump")
    backup_target.add_manifest()
    taken(backup_target.store(), "task-1")
    backup_target.store().start(uuid4(), "shop", "task-1", "worker-0")
    with pytest.raises(Snooze) as raised:
        backup_target.verify(holder="task-1")
    assert timedelta(seconds=20) < raised.value.delay < timedelta(seconds=35)
    let_run_out(backup_target.database)
    assert backup_target.verify(holder="task-1").state == "passed"
    assert [run.state for run in backup_target.runs()] == ["lost", "passed"]


def test_what_a_lost_worker_left_is_dropped_and_what_is_in_use_or_foreign_stays(
    backup_target: BackupTarget, shop_server: ShopServer, shop_dumps: dict[str, Path]
) -> None:
    shutil.copy(shop_dumps["custom"], backup_target.dumps / "shop.dump")
    backup_target.add_manifest()
    left, used, foreign = (scratch_name(target, uuid4()) for target in ("shop", "shop", "shop_eu"))
    admin = parse_address(shop_server.url_of(), "X")
    with admin.connect() as connection:
        for name in (left, used, foreign):
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        orphan = psycopg.connect(shop_server.url_of(left))  # as a killed worker's pg_restore would
        with admin.connect(used, program=KEEPER):  # as another platform on the same server would
            assert backup_target.verify().state == "passed"
            assert sorted(shop_server.scratch_databases()) == sorted([used, foreign])
        orphan.close()
        connection.execute(f'DROP DATABASE "{foreign}"'.encode())
    assert backup_target.verify().state == "passed"
    assert shop_server.scratch_databases() == []


def test_a_run_that_lost_its_lease_ends_its_restore_and_leaves_the_target_to_the_other(
    backup_target: BackupTarget, shop_server: ShopServer
) -> None:
    with shop_server.changed_shop(NAPS) as database:
        shop_server.dump(backup_target.dumps / "shop.dump", database)
    backup_target.add_manifest()
    backup_target.lease_time = timedelta(seconds=1)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            backup_target.verify(holder="slow")
        except InfrastructureError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(shop_server.scratch_databases, 30, "it restores")
    with backup_target.database.session() as session, session.begin():
        session.execute(update(BackupLease).values(token=uuid4(), holder="another"))
    thread.join(20)
    assert "lease" in str(raised[0])
    assert shop_server.scratch_databases() == []


def test_a_run_that_was_marked_as_lost_still_writes_what_it_found(database: Database) -> None:
    """It was only slow; what it saw is true."""
    store = a_store(database)
    first, second = uuid4(), uuid4()
    store.start(first, "shop", "one", "w")
    store.start(second, "shop", "two", "w")
    report = VerificationReport()
    report.add("restore", "fine", passed=True)
    assert store.finish(first, report).state == "passed"
