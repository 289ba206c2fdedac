"""Run the demo: `make demo`, or `make demo KEEP=1` to leave it up until Ctrl-C."""

import argparse
import fcntl
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import structlog
from rich.console import Console

from scripts.demo.domains import run_domains
from scripts.demo.environment import demo_settings, take_over, write_script
from scripts.demo.markets import ActError, chain_variables
from scripts.demo.receivers import three_subscribers
from scripts.demo.report import print_table, print_ways_on
from scripts.demo.show import DemoError, run_show
from scripts.demo.stage import Stage, StageError, interrupted
from scripts.standins.soroban_node import StandinNode
from tasks.app import DOMAINS
from taskyard.broker.server.valkey import EmbeddedValkey, ServerStartError
from taskyard.database.engine import current_engine
from taskyard.migrations.owners import table_owners
from taskyard.migrations.schema import upgrade

HOME = Path(".run/demo")  # kept after the demo, so that its records can be looked at; emptied by the next one
INTERRUPTED = 130  # the shell's exit code for Ctrl-C


def main() -> int:
    """Run the demo and return its exit code: 0 only if every number is what it must be."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything up until Ctrl-C")
    keep: bool = parser.parse_args().keep
    console = Console()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # the acts speak for us
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    home = HOME.resolve()
    try:
        with _alone(home):
            _demo(console, home, keep=keep)
    except (ActError, DemoError, StageError, ServerStartError) as error:
        Console(stderr=True).print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("demo: interrupted, everything is stopped")
        return INTERRUPTED
    return 0


def _demo(console: Console, home: Path, *, keep: bool) -> None:
    with ExitStack() as stack:
        console.print("Starting Valkey, a worker, beat and Flower ...")
        valkey = stack.enter_context(EmbeddedValkey(home / "valkey"))
        node = stack.enter_context(StandinNode())
        variables = demo_settings(home, valkey.url) | chain_variables(node)
        take_over(variables)
        write_script(home / "env", variables)
        upgrade(current_engine(), table_owners(DOMAINS))
        subscribers = three_subscribers()
        for one in subscribers:
            stack.enter_context(one.receiver)
        stage = stack.enter_context(Stage(home, valkey))
        outcome = run_show(console, subscribers, stage)
        print_table(console, outcome)
        outcome.check()
        run_domains(console, node, home / "backups")
        script = Path(os.path.relpath(home / "env", home.parent.parent))
        print_ways_on(console, script, stage.flower_url if keep else None)
        if keep:
            _wait_for_ctrl_c(console, stage)


def _wait_for_ctrl_c(console: Console, stage: Stage) -> None:
    console.print("\nEverything stays up until Ctrl-C.")
    forever = threading.Event()
    try:
        while not forever.wait(1):
            stage.check()
    except KeyboardInterrupt:
        console.print("Stopping ...")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Empty the demo's folder and work in it, unless another demo of this checkout does."""
    home.parent.mkdir(exist_ok=True)
    with (home.parent / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoError("another demo of this checkout is running") from error
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700)
        os.chdir(home)  # away from the .env of the checkout
        yield


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    interrupted.set()
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
