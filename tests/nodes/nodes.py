"""Brokers and workers for pytest-celery's fixtures; what runs them, containers or processes, is the client's affair."""

import os
import random
import socket
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from pytest_celery import CeleryTestBroker, CeleryTestContainer, CeleryTestWorker

from tests.waiting import wait_for
from tests.workers import READY_LIMIT, ROOT, STOP_LIMIT

IN_CONTAINERS = os.environ.get("CELERY_NODES") == "docker"
PORTS = range(10_000, 32_000)  # no connection gets its own port from here: what is free stays free until it is taken


class Box(CeleryTestContainer):  # type: ignore[misc]  # pytest-celery ships no types
    """A container on the host's network, so that one address holds for all; or the process in its place."""

    def __init__(self, container: Any, ready_words: str, config: Mapping[str, Any]) -> None:
        super().__init__(container)
        self._ready_words = ready_words
        self._config = dict(config)
        self._seen = 0  # characters of the log that an earlier start wrote

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """What pytest-celery puts into its app's configuration."""
        return self._config

    @property
    def status(self) -> str:
        """As Docker names it, now."""
        self.reload()
        return str(self._container.status)

    def ready(self) -> bool:
        """Wait until it says that it is ready."""

        def says_so() -> bool:
            assert self.status == "running", f"{self.name} is {self.status}:\n{self.tail()}"
            return self._ready_words in self.logs()[self._seen :]

        return wait_for(says_so, READY_LIMIT, f"{self.name} says {self._ready_words!r}", self.tail)

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal; after SIGKILL it is gone."""
        self._container.kill(signal)
        if signal == "SIGKILL":
            self.wait_ended()

    def wait_ended(self, limit_seconds: float = STOP_LIMIT) -> int:
        """Wait for its end; return the exit code."""
        return int(self._container.wait(timeout=limit_seconds)["StatusCode"])

    def restart(self, timeout: float = STOP_LIMIT) -> None:
        """End it if it runs, start it, and wait until it is ready."""
        self._seen = len(self.logs())
        self._container.restart(timeout=timeout)
        self.ready()

    def teardown(self) -> None:
        """End and remove it."""
        self._container.remove(force=True, v=True)

    def suspend(self) -> None:
        """It keeps its sockets but does nothing."""
        self._container.pause()

    def resume(self) -> None:
        """It goes on."""
        self._container.unpause()

    def tail(self, lines: int = 30) -> str:
        """The end of its log, for messages of failed tests."""
        return "\n".join(self.logs().splitlines()[-lines:])

    def worker_queue(self) -> str:
        """What pytest-celery's own tasks are sent to."""
        return "celery"

    def worker_name(self) -> str:
        """What a node name begins with."""
        return "worker"


class Broker(CeleryTestBroker):  # type: ignore[misc]  # as above
    """A Valkey."""

    container: Box

    @property
    def url(self) -> str:
        """The URL of database 0, for tests and workers alike."""
        return str(self.container.celeryconfig["url"])

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return int(self.container.celeryconfig["port"])

    def client(self) -> redis.Redis:
        """A new client that answers with `str`."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def flush(self) -> None:
        """Empty all databases and forget all scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()


class WorkerNode(CeleryTestWorker):  # type: ignore[misc]  # as above
    """A `celery worker` of this checkout."""

    container: Box

    @property
    def pid(self) -> int:
        """The main process; of a container, its first one."""
        return int(self.container.attrs["State"]["Pid"])

    def term(self) -> None:
        """SIGTERM to the main process: a warm shutdown (soft with REMAP_SIGTERM=SIGQUIT)."""
        self.kill("SIGTERM")

    def stop(self) -> None:
        """A warm shutdown, to its end."""
        self.term()
        assert self.container.wait_ended() == 0, self.container.tail()


def start_broker(client: Any, appendfsync: str = "always") -> Broker:
    """Start a Valkey on a port of its own, and wait until it answers."""
    port = _free_port()
    command = ["valkey-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", appendfsync]
    container = _run(client, os.environ.get("VALKEY_IMAGE", "valkey/valkey:9"), command)
    url = f"redis://127.0.0.1:{port}/0"
    box = Box(container, "Ready to accept connections", {"url": url, "host_url": url, "port": port})
    box.ready()
    return Broker(box)


def start_worker(client: Any, words: Sequence[str], env: Mapping[str, str], root: Path = ROOT) -> WorkerNode:
    """
    Start `celery` with these words on the code in `root`; do not wait.

    A container has the base image and the packages of this environment, and the host's temporary folder.
    """
    command = ["python3", "-m", "celery", *words]
    packages = sysconfig.get_path("purelib")
    container = _run(
        client,
        os.environ.get("PYTHON_IMAGE", "python:3.13-slim"),
        command,
        environment={**env, "PYTHONPATH": f"{root}{os.pathsep}{packages}"},
        working_dir=str(root),
        volumes=[f"{ROOT}:{ROOT}:ro", f"{packages}:{packages}:ro", f"{tempfile.gettempdir()}:{tempfile.gettempdir()}"],
        user=str(os.getuid()),  # it writes to the test's folder
    )
    return WorkerNode(Box(container, " ready.", {}), None)


def _run(client: Any, image: str, command: Sequence[str], **options: Any) -> Any:
    return client.containers.run(image, command, detach=True, init=True, network_mode="host", **options)


def _free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no port is free")
