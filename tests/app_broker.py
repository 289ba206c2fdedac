"""The app of a test process enqueues to one broker after the other."""

from kombu import pools

from tasks.app import app
from taskyard.settings.loading import current_settings


def use_broker(url: str) -> None:
    """Let this process enqueue to the test's broker, whatever it enqueued to before, and whoever closed its pools."""
    current_settings.cache_clear()
    app.close()
    pools.reset()
    vars(app.amqp)["_producer_pool"] = None  # it remembers the connection of before, and has no method to forget it
    vars(vars(app)["_local"]).pop("backend", None)  # as above: it would listen for results at the server of before
    app.conf.update(broker_url=url, broker_read_url=url, broker_write_url=url, result_backend=url)
