"""A small `up` for tests: `python -m tests.launch.small_up JSON` keeps programs of a few lines, which start quickly."""

import asyncio
import json
import signal
import sys
from datetime import timedelta
from typing import Any

from taskyard.launch.children import CeleryProcess, Program, ShutdownStage
from taskyard.launch.log_prefixes import LogPrefixer
from taskyard.launch.nonblocking_log import nonblocking_stderr
from taskyard.launch.restart_backoff import RestartBackoff
from taskyard.launch.supervisor import ProcessSupervisor
from taskyard.logging import configure_logging
from taskyard.settings.loading import load_settings


def main() -> None:
    """Keep the programs until a signal; exit 1 when one was given up or killed."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    with nonblocking_stderr() as log_stream:
        log_stream.as_json = True
        configure_logging(load_settings({"LOG_FORMAT": "json"}))
        went_well = run(given)
    sys.exit(0 if went_well else 1)


def run(given: dict[str, Any]) -> bool:
    """Keep them."""
    programs = [
        Program(
            each["name"],
            (sys.executable, "-I", "-S", "-u", "-c", each["code"]),
            ShutdownStage[each.get("stage", "WORKERS")],
            each.get("stop_seconds", 30.0),
            is_vital=each.get("is_vital", True),
            orphan_signal=signal.Signals[each.get("orphan_signal", "SIGTERM")],
        )
        for each in given["programs"]
    ]
    printer = LogPrefixer([each.name for each in programs], sys.stderr, as_json=True, in_colour=False)
    children = [CeleryProcess(each, printer) for each in programs]

    async def keep() -> bool:
        pause = timedelta(seconds=given.get("delay", 0.05))
        return await ProcessSupervisor(children, lambda: RestartBackoff(pause, given.get("limit", 5))).run()

    return asyncio.run(keep())


if __name__ == "__main__":
    main()
