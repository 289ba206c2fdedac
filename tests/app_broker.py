"""The app of a test process uses one broker, and one database, after the other."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from kombu import pools

from tasks.app import app
from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings


def use_broker(url: str) -> None:
    """Let this process enqueue to the test's broker, whatever it enqueued to before, and whoever closed its pools."""
    current_settings.cache_clear()
    app.close()
    pools.reset()
    vars(app.amqp)["_producer_pool"] = None  # it remembers the connection of before, and has no method to forget it
    vars(vars(app)["_local"]).pop("backend", None)  # as above: it would listen for results at the server of before
    app.conf.update(broker_url=url, broker_read_url=url, broker_write_url=url, result_backend=url)


@contextmanager
def using_servers(environ: Mapping[str, str], patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let settings, engine and app of this process use the servers of these variables while the block runs."""
    for name, value in environ.items():
        patch.setenv(name, value)
    forget_settings()
    use_broker(environ["REDIS_URL"])
    yield
    forget_settings()


def forget_settings() -> None:
    """Let settings be read, and the database be opened, anew."""
    if current_engine.cache_info().currsize:
        current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
