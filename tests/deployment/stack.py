"""docker-compose.yml brought up for a test under a name of its own, with the means to hurt it."""

import json
import os
import secrets
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("docker-compose.yml", "tests/deployment/with_receiver.yml")
BUILD_LIMIT = 900  # seconds; packages are fetched when nothing is cached
LIMIT = 300  # seconds, for all else
IMAGE = "taskyard:tests"


class Stack:
    """The services of the compose file and a receiver of webhooks; all is removed at the end, volumes too."""

    def __init__(self) -> None:
        self.project = f"taskyard-test-{secrets.token_hex(4)}"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.flower_port = int(probe.getsockname()[1])
        self.flower_login = f"operator:{secrets.token_hex(8)}"
        self._environment = {
            **os.environ,
            "APP_IMAGE": IMAGE,
            "COMPOSE_PROJECT_NAME": self.project,
            "FLOWER_BASIC_AUTH": self.flower_login,
            "FLOWER_PORT": str(self.flower_port),
            "METRICS_AUTH_TOKEN": secrets.token_hex(16),
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "VALKEY_PASSWORD": secrets.token_hex(16),
            "WEBHOOK_SECRET_KEYS": "test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",  # protects nothing
        }
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        program = ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]
        self._compose = [*program, *(word for file in FILES for word in ("-f", file))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(self.compose("logs", "--no-color", "--tail", "40", "worker-io", "migrate"))  # noqa: T201 - for the reader of the failure
        self.compose("down", "--volumes", "--timeout", "1")

    def compose(self, *words: str, stdin: str = "", limit_seconds: float = LIMIT) -> str:
        """Run a command of Compose; return what it printed."""
        return self._run([*self._compose, *words], stdin, limit_seconds)

    def docker(self, *words: str) -> str:
        """Run a command of Docker; return what it printed."""
        return self._run(["docker", *words], "", LIMIT)

    def python(self, program: str) -> str:
        """Run a program in a worker's container; return what it printed."""
        return self.compose("exec", "-T", "--index=1", "worker-io", "python3", "-W", "ignore", "-", stdin=program)

    def sql(self, query: str) -> str:
        """Ask the database; return the columns with `|` between them."""
        ask = "PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U taskyard -d taskyard --no-align --tuples-only"
        return self.compose("exec", "-T", "postgres", "sh", "-c", ask, stdin=query)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What Docker knows of the containers of a service, or of all."""
        labels = ["--filter", f"label=com.docker.compose.project={self.project}"]
        if service:
            labels += ["--filter", f"label=com.docker.compose.service={service}"]
        ids = self.docker("ps", "--all", "--quiet", *labels).split()
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids)) if ids else []
        return found

    def wait_healthy(self, number: int) -> None:
        """Wait until so many containers have a health check and pass it."""

        def states() -> list[str]:
            return [each["State"].get("Health", {}).get("Status", "none") for each in self.containers()]

        wait_for(lambda: states().count("healthy") == number, LIMIT, f"{number} are healthy", lambda: str(states()))

    def received(self) -> list[str]:
        """The ids of all webhooks that came to the receiver, in order."""
        (container,) = self.containers("receiver")
        return self.docker("logs", container["Id"]).split()

    def _run(self, command: list[str], stdin: str, limit_seconds: float) -> str:
        done = subprocess.run(
            command,
            input=stdin,
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_seconds,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout
