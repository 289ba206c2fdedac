"""The sweeper: it calls what waits, finds what was lost, and leaves paused lanes alone."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.lanes import UNPROVEN
from taskyard.webhooks.models import Delivery
from tests.webhooks.webhook_rows import WebhookRows, status

GRACE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


def ids(released: tuple[DueDelivery, ...] | list[DueDelivery]) -> list[object]:
    return [due.delivery_id for due in released]


class TestSweep:
    """What the sweeper hands over: the lost, and of the waiting as many as their lanes hold."""

    def test_a_delivery_that_was_handed_over_is_left_alone_for_the_grace(self, webhook_rows: WebhookRows) -> None:
        webhook_rows.endpoint()
        webhook_rows.emit()

        assert webhook_rows.store.lost(100, GRACE) == []
        assert webhook_rows.store.waiting(100) == []

    def test_one_that_is_still_due_after_the_grace_is_handed_over_again_once(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        (delivery,) = webhook_rows.emit()
        webhook_rows.change(Delivery, delivery, enqueued_at=utc_now() - GRACE - SECOND)

        assert webhook_rows.store.lost(100, GRACE) == [DueDelivery(delivery, endpoint, lane=UNPROVEN)]
        assert webhook_rows.store.lost(100, GRACE) == []

    def test_the_delivery_of_a_dead_worker_is_handed_over_when_its_lease_ends(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        (delivery,) = webhook_rows.emit()
        webhook_rows.claim(delivery)
        webhook_rows.change(Delivery, delivery, enqueued_at=utc_now() - GRACE - SECOND)
        assert webhook_rows.store.lost(100, GRACE) == []

        webhook_rows.lose_worker(delivery)

        assert webhook_rows.store.lost(100, GRACE) == [DueDelivery(delivery, endpoint, lane=UNPROVEN)]

    def test_of_a_thousand_waiting_it_takes_what_the_lane_holds(self, webhook_rows: WebhookRows) -> None:
        slow, quick = webhook_rows.endpoint(("slow",), max_concurrency=3), webhook_rows.endpoint(("quick",))
        for name in ["slow"] * 40 + ["quick"] * 4:
            (delivery,) = webhook_rows.emit(name)
            webhook_rows.change(Delivery, delivery, enqueued_at=None)

        taken = webhook_rows.store.waiting(1000)

        assert [due.endpoint_id for due in taken].count(slow) == 3
        assert [due.endpoint_id for due in taken].count(quick) == 4
        assert not any(due.has_task for due in taken)

    def test_a_long_wait_ends_in_sql(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint(retry_delays=(timedelta(hours=6),))
        (delivery,) = webhook_rows.emit()
        webhook_rows.attempt(delivery, status(500))
        assert webhook_rows.store.waiting(100) == webhook_rows.store.lost(100, GRACE) == []

        webhook_rows.change(Delivery, delivery, next_attempt_at=utc_now())

        assert webhook_rows.store.waiting(100) == [DueDelivery(delivery, endpoint, has_task=False)]

    def test_two_sweepers_at_once_share_the_work(self, webhook_rows: WebhookRows) -> None:
        webhook_rows.endpoint()
        rows = webhook_rows.emit_many(60)
        for row in rows:
            webhook_rows.change(Delivery, row, enqueued_at=utc_now() - GRACE - SECOND)

        with ThreadPoolExecutor(4) as pool:
            batches = list(pool.map(lambda _: webhook_rows.store.lost(100, GRACE), range(4)))

        assert sorted(map(str, ids([due for batch in batches for due in batch]))) == sorted(map(str, rows))
