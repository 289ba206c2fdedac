"""The lease: one holder, tokens that only grow, and a holder that stops believing first."""

from datetime import timedelta

import pytest
import redis

from taskyard.beat.engine.leadership import LeaderLease, current_leader
from tests.servers import Server
from tests.waiting import wait_for

SHORT = timedelta(milliseconds=300)


def lease(server: Server, length: timedelta = timedelta(seconds=30)) -> LeaderLease:
    return LeaderLease(server.client(), "test:", length)


def test_one_process_holds_the_lease(broker_server: Server) -> None:
    one, two = lease(broker_server), lease(broker_server)
    assert one.hold() == 1
    assert two.hold() == 0
    assert one.hold() == 1
    assert (one.is_held(), two.is_held()) == (True, False)
    seen = current_leader(broker_server.client(), "test:")
    assert seen is not None
    assert (seen.owner, seen.token) == (one.owner, 1)


def test_a_released_lease_is_free_at_once_and_its_next_holder_has_a_higher_token(valkey: Server) -> None:
    one, two = lease(valkey), lease(valkey)
    one.hold()
    two.release()  # not its own: nothing happens
    assert two.hold() == 0
    one.release()
    assert not one.is_held()
    assert two.hold() == 2


def test_a_lease_that_is_not_renewed_ends_and_its_holder_knows_before(valkey: Server) -> None:
    one, two = lease(valkey, SHORT), lease(valkey, SHORT)
    one.hold()

    def taken() -> bool:
        token = two.hold()
        assert not (token and one.is_held()), "two believe to lead"
        return token == 2

    wait_for(taken, 5, "the other one takes it")
    assert one.hold() == 0


def test_a_token_is_above_what_the_database_has_seen(valkey: Server) -> None:
    one = lease(valkey)
    assert one.hold(above=41) == 42
    assert one.hold() == 42
    assert one.hold(above=42) == 43


def test_a_broker_that_is_gone_is_an_error_and_the_hold_lasts_to_its_end(valkey: Server) -> None:
    one = LeaderLease(redis.Redis.from_url(valkey.url, socket_timeout=1, retry=None), "test:", timedelta(seconds=2))
    one.hold()
    valkey.stop()
    with pytest.raises(redis.ConnectionError):
        one.hold()
    assert one.is_held()
    wait_for(lambda: not one.is_held(), 5, "it ends by the holder's own clock")
