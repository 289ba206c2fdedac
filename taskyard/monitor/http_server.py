"""
The HTTP server of a process group: `/metrics`, `/healthz`, `/readyz` on `METRICS_ADDRESS` and `METRICS_PORT`.

Processes of a host with the same port, `TASKYARD_DATA` and `TASKYARD_KEY_PREFIX` are one group: the first to bind the
port answers for all, and when it exits, another binds it within a second.
"""

import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from taskyard.broker.server.client import shared_client
from taskyard.database.engine import current_engine
from taskyard.monitor.background_collector import BackgroundCollector, broker_gauges, database_gauges, families
from taskyard.monitor.health import Readiness
from taskyard.monitor.shared_counts import Snapshots, exposition
from taskyard.settings.platform import Settings

WRITE_EVERY = 1.0  # seconds
log = structlog.get_logger(__name__)


class Monitor:
    """Shares the metrics of this process, and answers for the group if the port is free."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        """Prepare; opens nothing before :meth:`start`."""
        self._settings, self._registry = settings, registry
        self._port = settings.metrics_port
        self._stop = threading.Event()
        self._snapshots: Snapshots | None = None
        self._server: ThreadingHTTPServer | None = None
        self._collectors: list[BackgroundCollector] = []
        self._readiness: Readiness | None = None
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Start; does nothing without a port."""
        if self._port is not None:
            self._snapshots = Snapshots(metrics_folder(self._settings))
            self._thread.start()

    def stop(self) -> None:
        """Write the last values, and release the port."""
        if self._snapshots is None:
            return
        self._stop.set()
        self._thread.join(WRITE_EVERY * 2)
        for collector in self._collectors:
            collector.stop()
        if self._readiness is not None:
            self._readiness.stop()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._snapshots.write(self._registry)
        self._snapshots.close()

    def metrics(self) -> bytes:
        """Return the metrics of the whole group."""
        assert self._snapshots is not None  # noqa: S101 - the server runs only after start
        self._snapshots.write(self._registry)
        gauges = [sample for collector in self._collectors for sample in collector.samples()]
        return exposition([*self._snapshots.merged(), *families(gauges)])

    def readiness(self) -> tuple[bool, bytes]:
        """Return whether all checks passed lately, and their report, without waiting for a server."""
        assert self._readiness is not None  # noqa: S101 - the server runs only after start
        checks = self._readiness.report()
        is_ready = all(check.is_ok for check in checks)
        report = {"ready": is_ready, "checks": {check.name: check.note for check in checks}}
        return is_ready, json.dumps(report, indent=2).encode() + b"\n"

    def may_read(self, authorization: str | None) -> bool:
        """Return whether a request may read the metrics."""
        token = self._settings.metrics_auth_token
        if token is None:
            return True
        wanted = f"Bearer {token.get_secret_value()}"
        return hmac.compare_digest((authorization or "").encode(), wanted.encode())

    def _run(self) -> None:
        assert self._snapshots is not None  # noqa: S101 - as above
        while True:
            try:
                self._snapshots.write(self._registry)
                if self._server is None:
                    self._bind()
            except Exception:  # the edge of the thread: a full disk must not end it
                log.exception("metrics.failed")
            if self._stop.wait(WRITE_EVERY):
                return

    def _bind(self) -> None:
        try:
            server = _Server((self._settings.metrics_address, self._port or 0), _Handler)
        except OSError:  # another process of the group answers
            return
        server.monitor = self
        prefix = self._settings.taskyard_key_prefix
        client = shared_client(self._settings.redis_url)
        self._collectors = [
            BackgroundCollector("broker", lambda: broker_gauges(client, prefix)),
            BackgroundCollector("database", database_gauges),
        ]
        self._readiness = Readiness(client, current_engine(), self._settings)
        self._server = server
        threading.Thread(target=server.serve_forever, name="metrics server", daemon=True).start()
        log.info("metrics.listening", address=self._settings.metrics_address, port=self._port)


def metrics_folder(settings: Settings) -> Path:
    """Return where the processes of one platform and port share their numbers."""
    return settings.taskyard_data / "metrics" / f"{settings.taskyard_key_prefix}{settings.metrics_port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    monitor: Monitor


class _Handler(BaseHTTPRequestHandler):
    """Answers GET only; an unknown path is 404."""

    timeout = 10  # seconds for a client to send its request
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        monitor = self.server.monitor
        path = self.path.partition("?")[0]
        if path == "/metrics":
            if monitor.may_read(self.headers.get("Authorization")):
                self._send(200, monitor.metrics(), CONTENT_TYPE_PLAIN_0_0_4)
            else:
                self._send(401, b"METRICS_AUTH_TOKEN is required as a bearer token\n")
        elif path == "/healthz":
            self._send(200, b"ok\n")
        elif path == "/readyz":
            is_ready, report = monitor.readiness()
            self._send(200 if is_ready else 503, report, "application/json")
        else:
            self._send(404, b"not found; try /metrics, /healthz or /readyz\n")

    def log_message(self, *_: object) -> None:
        """Log nothing: scrapes are not events."""

    def _send(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        if status == 401:  # noqa: PLR2004 - HTTP
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
