"""
The process that others are forked off: it has imported Celery and the library, and no app.

It is asked on its standard input, and tells there when one has ended: JSON lines on a Unix socket. A fork is a process
group of its own with an environment, a folder and a log of its own, and runs `python -m celery ARGUMENT ...`.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import time
from selectors import EVENT_READ, DefaultSelector
from typing import Any

PREPARED = (  # without what registers tasks or listens to signals when it is imported: each app says what it has
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.events.receiver",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.consumer",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "taskyard.beat.entries",
    "taskyard.broker.transport.channel",
    "taskyard.broker.worker.signal_handlers",
    "taskyard.built_in",
    "taskyard.cli.app_commands",
    "taskyard.flows.running.step_execution",
    "taskyard.history.writer.bootstep",
    "taskyard.migrations.schema",
    "taskyard.monitor.in_worker",
    "taskyard.tasks.platform_worker",
    "taskyard.tasks.slot_shares",
    "taskyard.webhooks.delivery.store",
    "taskyard.webhooks.http.webhook_client",
)
PR_SET_PDEATHSIG = 1  # Source: prctl(2)


def main() -> None:
    """Serve until the other end is closed; in a fork, run `celery`."""
    tie_to_parent()
    for module in PREPARED:
        importlib.import_module(module)
    asked = serve(socket.socket(fileno=os.dup(0)))
    if asked is not None:
        run_celery(**asked)


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return None at the end, or in a fork what was asked."""
    told, tell = socket.socketpair()
    told.setblocking(False)  # noqa: FBT003 - by position only
    tell.setblocking(False)  # noqa: FBT003 - as above
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell.fileno())
    requests = connection.makefile("r")
    with DefaultSelector() as selector:
        selector.register(connection, EVENT_READ)
        selector.register(told, EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if told in ready:
                told.recv(4096)
                report_ended(connection)
            if connection not in ready:
                continue
            line = requests.readline()  # one request waits for its answer: no line is left in the buffer
            if not line:
                return None
            has_group, tell_group = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.setsid()
                os.close(tell_group)
                os.close(has_group)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                requests.close()
                connection.close()
                asked: dict[str, Any] = json.loads(line)
                return asked
            os.close(tell_group)
            os.read(has_group, 1)  # nothing: from here on its group can be sent signals
            os.close(has_group)
            connection.sendall(f"{json.dumps({'started': pid})}\n".encode())


def report_ended(connection: socket.socket) -> None:
    """Tell of each fork that has ended how it did."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        connection.sendall(f"{json.dumps({'ended': pid, 'code': os.waitstatus_to_exitcode(status)})}\n".encode())


def run_celery(arguments: list[str], env: dict[str, str], folder: str, log: str) -> None:
    """Become what `python -m celery` is there."""
    tie_to_parent()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(number, target)
    os.close(output)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = ["celery", *arguments]
    concurrency = importlib.import_module("celery.concurrency")
    importlib.reload(concurrency)  # it reads CELERY_CUSTOM_WORKER_POOL when it is imported
    celery = importlib.import_module("celery.__main__")
    sys.exit(celery.main())


def tie_to_parent() -> None:
    """Get SIGKILL when the process that started this one ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
