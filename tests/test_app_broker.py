"""The app of a test process leaves nothing on the servers of the tests before."""

from pathlib import Path

from tasks.app import app
from tests.app_broker import use_broker
from tests.servers import Server


def test_a_result_that_was_awaited_on_a_stopped_server_hinders_nothing(valkey: Server, tmp_path: Path) -> None:
    with Server(tmp_path / "gone") as gone:
        use_broker(gone.url)
        app.send_task("of.a.test.before", queue="before", ignore_result=False)
    use_broker(valkey.url)
    run = app.send_task("of.this.test", queue="now", ignore_result=False)
    with valkey.client() as client:
        assert client.pubsub_channels() == [f"taskyard:celery-task-meta-{run.id}"]
