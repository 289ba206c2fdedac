"""What pytest-celery asks of a container: kept by a process, or by a real container with CELERY_NODES=docker."""

import json
import os
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from signal import Signals
from typing import Any, Protocol

from tests.engine import docker
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import READY_LIMIT, ROOT, Worker

QUEUE = "celery"
IN_CONTAINERS = os.environ.get("CELERY_NODES") == "docker"


class Box(Protocol):
    """The part that both kinds share."""

    id: str
    name: str
    celeryconfig: dict[str, Any]

    @property
    def status(self) -> str:
        """As Docker names it."""

    def logs(self) -> str:
        """What it has written."""

    def kill(self, signal: str) -> None:
        """Send the signal and wait for the end."""

    def restart(self, timeout: float) -> None:
        """Start it again."""

    def teardown(self) -> None:
        """End it."""


class Node:
    """What a worker and a broker tell about themselves, whatever keeps them."""

    def ready(self: Box) -> bool:
        """Whether it is up."""
        return self.status == "running"

    def reload(self) -> None:
        """Nothing is cached."""

    def worker_queue(self) -> str:
        """What the worker takes from."""
        return QUEUE

    def worker_name(self) -> str:
        """The worker's node name."""
        return "worker"


class ProcessBox(Node):
    """A process of this machine."""

    id = "process"
    name = "process"

    def __init__(self, process: Server | Worker, config: dict[str, Any]) -> None:
        self.process = process
        self.celeryconfig = config

    @property
    def status(self) -> str:
        return "running" if self.process.is_running else "exited"

    def logs(self) -> str:
        return self.process.log.read_text(errors="replace")

    def kill(self, signal: str) -> None:
        if signal == "SIGKILL":
            self.process.kill()
        else:
            os.kill(self.process.pid, Signals[signal])

    def restart(self, timeout: float) -> None:  # noqa: ARG002 - pytest-celery's signature
        self.process.start()

    def teardown(self) -> None:
        self.process.stop()


class ContainerBox(Node):
    """A container on the host's network, so that one URL holds for all; `ready_words` of its log say that it is up."""

    def __init__(
        self, image: str, command: Sequence[str], options: Sequence[str], ready_words: str, config: dict[str, Any]
    ) -> None:
        self.celeryconfig = config
        self._ready_words = ready_words
        words = ["run", "--detach", "--init", "--network", "host", *options, image, *command]
        self.id = self.name = docker(*words).split()[-1]
        self._wait(0)

    @property
    def status(self) -> str:
        return str(json.loads(docker("inspect", self.id))[0]["State"]["Status"])

    def logs(self) -> str:
        return docker("logs", self.id)

    def kill(self, signal: str) -> None:
        docker("kill", "--signal", signal, self.id)
        docker("wait", self.id)

    def restart(self, timeout: float) -> None:  # noqa: ARG002 - pytest-celery's signature
        begin = len(self.logs())
        docker("start", self.id)
        self._wait(begin)

    def teardown(self) -> None:
        with suppress(AssertionError):  # it was removed before
            docker("rm", "--force", "--volumes", self.id)

    def _wait(self, begin: int) -> None:
        wait_for(
            lambda: self._ready_words in self.logs()[begin:], READY_LIMIT, f"it says {self._ready_words}", self.logs
        )


def broker_box(url: str, port: int) -> ContainerBox:
    """A Valkey with its log on, in a container."""
    image = os.environ.get("VALKEY_IMAGE", "valkey/valkey:9")
    command = ["valkey-server", "--bind", "127.0.0.1", "--port", str(port), "--appendonly", "yes"]
    return ContainerBox(image, command, (), "Ready to accept connections", {"url": url, "host_url": url})


def worker_box(arguments: Sequence[str], env: dict[str, str]) -> ContainerBox:
    """A worker of this checkout with the packages of this environment, in a container of the base image."""
    image = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
    options = ["--user", "10001", "--workdir", "/tmp", "-v", f"{ROOT}:/checkout:ro"]  # noqa: S108 - in the container
    options += ["-v", f"{sysconfig.get_path('purelib')}:/packages:ro", "-e", "PYTHONPATH=/checkout:/packages"]
    options += [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
    command = ["python3", "-m", "celery", "-A", "tests.broker.app", "worker", "-n", "worker@test", "-l", "INFO"]
    return ContainerBox(image, [*command, *arguments], options, " ready.", {})
