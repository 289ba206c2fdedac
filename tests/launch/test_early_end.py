"""`up` that is told to end while it prepares itself: one line, no traceback, exit code 0."""

import signal
import socket
from pathlib import Path

import pytest

from tests.launch.up_process import LIMIT, Up


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_process_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """Here it waits for a database that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT)
        url = f"postgresql+psycopg://someone@127.0.0.1:{silent.getsockname()[1]}/none"
        environment = {"DATABASE_URL": url, "TASKYARD_DATA": str(tmp_path / "data"), "LOG_FORMAT": "json"}
        with Up(["-m", "celery", "-A", "tests.launch.app", "up", "--no-flower"], tmp_path, environment) as up:
            connection, _ = silent.accept()
            up.signal(number)
            code = up.wait_ended()
            connection.close()
            assert code == 0, up.tail()
            assert up.says("up.stopped", signal=number.name)
            assert "Traceback" not in up.log.read_text()
