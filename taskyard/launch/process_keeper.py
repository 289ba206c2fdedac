"""Keeps the processes running: starts what died again with a growing pause, gives up loudly, ends all in order."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from taskyard.launch.children import Child, Stage
from taskyard.launch.early_signals import heeded
from taskyard.launch.restarts import Restarts

KILL_WAIT = 5.0  # seconds for the kernel to end what was killed
KILLING_SIGNAL = 3  # the first ends in order, the second hurries the workers, the third kills
log = structlog.get_logger(__name__)


class Keeper:
    """The processes of one `up`, from the first start to the last end."""

    def __init__(self, children: Sequence[Child], restarts: Callable[[], Restarts]) -> None:
        """`restarts` makes the counter of one process; nothing starts yet."""
        self._children = tuple(children)
        self._restarts = restarts
        self._ending = asyncio.Event()
        self._signals = 0
        self._has_failed = False

    async def run(self) -> bool:
        """Keep all until a signal, or until one of them is given up; return whether all went well."""
        loop = asyncio.get_running_loop()
        for number in heeded():
            loop.add_signal_handler(number, self._on_signal, number)
        keeping = [asyncio.create_task(self._keep(child)) for child in self._children]
        try:
            await self._ending.wait()
            for stage in Stage:
                await self._end([child for child in self._children if child.stage == stage and child.is_running])
            await asyncio.wait(keeping, timeout=KILL_WAIT)
        finally:
            for child in self._children:
                child.kill()
        log.info("up.ended", ok=not self._has_failed)
        return not self._has_failed

    async def _keep(self, child: Child) -> None:
        restarts = self._restarts()
        while not self._ending.is_set():
            started = time.monotonic()
            how = await self._run_once(child)
            if self._ending.is_set():
                log.info("process.ended", process=child.name, how=how)
                return
            pause = restarts.pause_after(timedelta(seconds=time.monotonic() - started))
            if pause is None:
                self._give_up(child, how)
                return
            log.warning("process.died", process=child.name, how=how, again_in=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _run_once(self, child: Child) -> str:
        try:
            child.start()
        except OSError as error:
            return str(error)
        log.info("process.started", process=child.name, pid=child.pid)
        return await child.ended()

    def _give_up(self, child: Child, how: str) -> None:
        log.error("process.given_up", process=child.name, how=how, ends_all=child.is_vital)
        if child.is_vital:
            self._has_failed = True
            self._ending.set()

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("up.signal", signal=number.name, count=self._signals)
        if self._ending.is_set():
            for child in self._children:
                if self._signals >= KILLING_SIGNAL:
                    child.kill()
                elif child.stage != Stage.SERVERS:  # it must outlive those who write to it
                    child.ask_to_end()
        self._ending.set()

    async def _end(self, children: Sequence[Child]) -> None:
        for child in children:
            child.ask_to_end()
        deadline = time.monotonic() + max((child.stop_seconds for child in children), default=0.0)
        while any(child.is_running for child in children) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for child in children:
            if child.is_running:
                log.error("process.killed", process=child.name, after=child.stop_seconds)
                self._has_failed |= child.is_vital
                child.kill()
