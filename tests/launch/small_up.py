"""A small `up` for tests: `python -m tests.launch.small_up JSON` keeps programs of a few lines, which start quickly."""

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from config.logging import configure_logging
from config.settings import load_settings
from launch.children import Program, ProgramChild, Stage
from launch.keeper import Keeper
from launch.printing import Printer
from launch.restarts import Restarts


def main() -> None:
    """Keep the programs until a signal; exit 1 when one was given up or killed."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    configure_logging(load_settings({"LOG_FORMAT": "json"}))
    programs = [
        Program(
            each["name"],
            (sys.executable, "-I", "-S", "-u", "-c", each["code"]),
            Stage[each.get("stage", "WORKERS")],
            each.get("stop_seconds", 30.0),
            is_vital=each.get("is_vital", True),
        )
        for each in given["programs"]
    ]
    printer = Printer([each.name for each in programs], sys.stderr, as_json=True, in_colour=False)
    children = [ProgramChild(each, printer) for each in programs]

    async def keep() -> bool:
        pause = timedelta(seconds=given.get("delay", 0.05))
        return await Keeper(children, lambda: Restarts(pause, given.get("limit", 5))).run()

    sys.exit(0 if asyncio.run(keep()) else 1)


if __name__ == "__main__":
    main()
