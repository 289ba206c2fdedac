"""
Supervises processes: restarts them with backoff, and stops all in order.

A process in a crash loop is restarted every minute while the others run: one queue's message that kills the workers of
its profile must not stop the other queues. When no worker is left, or the server is, all are stopped, so that a service
manager notices.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from taskyard.launch.children import ManagedProcess, ShutdownStage
from taskyard.launch.restart_backoff import RestartBackoff
from taskyard.launch.startup_signals import termination_signals

KILL_TIMEOUT = 5.0  # seconds for killed processes to disappear
KILL_AT_SIGNAL = 3  # the first signal stops in order, the second hurries the workers, the third kills
log = structlog.get_logger(__name__)


class ProcessSupervisor:
    """The processes of one `up`, from the first start to the last exit."""

    def __init__(self, children: Sequence[ManagedProcess], restarts: Callable[[], RestartBackoff]) -> None:
        """`restarts` creates the backoff of one process; nothing starts yet."""
        self._children = tuple(children)
        self._restarts = restarts
        self._stopping = asyncio.Event()
        self._signals = 0
        self._has_failed = False
        self._crash_loops: set[str] = set()  # names

    async def run(self) -> bool:
        """Run all until a signal, or until no worker stays up; return whether all went well."""
        loop = asyncio.get_running_loop()
        for number in termination_signals():
            loop.add_signal_handler(number, self._on_signal, number)
        supervising = [asyncio.create_task(self._supervise(child)) for child in self._children]
        try:
            await self._stopping.wait()
            for stage in ShutdownStage:
                await self._stop_stage([child for child in self._children if child.stage == stage and child.is_running])
            await asyncio.wait(supervising, timeout=KILL_TIMEOUT)
        finally:
            for child in self._children:
                child.kill()
        log.info("up.stopped", ok=not self._has_failed)
        return not self._has_failed

    async def _supervise(self, child: ManagedProcess) -> None:
        restarts = self._restarts()
        while not self._stopping.is_set():
            started = time.monotonic()
            how = await self._run_once(child)
            if self._stopping.is_set():
                log.info("process.exited", process=child.name, how=how)
                return
            pause = restarts.next_delay(timedelta(seconds=time.monotonic() - started))
            log.warning("process.died", process=child.name, how=how, restart_in=pause)
            self._note_crash(child, is_loop=restarts.is_crash_loop)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_once(self, child: ManagedProcess) -> str:
        try:
            child.start()
        except OSError as error:
            return str(error)
        log.info("process.started", process=child.name, pid=child.pid)
        return await child.wait_exited()

    def _note_crash(self, child: ManagedProcess, *, is_loop: bool) -> None:
        """Report a crash loop once, and stop all when nothing is left that could work."""
        if not is_loop:
            self._crash_loops.discard(child.name)
            return
        if child.name in self._crash_loops:
            return
        self._crash_loops.add(child.name)
        workers = {each.name for each in self._children if each.stage == ShutdownStage.WORKERS}
        is_hopeless = child.stage == ShutdownStage.SERVERS or (child.name in workers and workers <= self._crash_loops)
        log.error("process.crash_loop", process=child.name, stops_all=is_hopeless)
        if is_hopeless:
            self._has_failed = True
            self._stopping.set()

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("up.signal", signal=number.name, count=self._signals)
        if self._stopping.is_set():
            for child in self._children:
                if self._signals >= KILL_AT_SIGNAL:
                    child.kill()
                elif child.stage != ShutdownStage.SERVERS:  # its clients exit first
                    child.terminate()
        self._stopping.set()

    async def _stop_stage(self, children: Sequence[ManagedProcess]) -> None:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + max((child.stop_seconds for child in children), default=0.0)
        while any(child.is_running for child in children) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for child in children:
            if child.is_running:
                log.error("process.killed", process=child.name, after=child.stop_seconds)
                self._has_failed |= child.is_vital
                child.kill()
