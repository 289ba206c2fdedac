"""What the numbers were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "aiohttp")


def describe() -> str:
    """Return the machine and the versions as Markdown lines."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    return "\n".join(
        [
            f"- machine: {os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, load before the run {load}",
            f"- Python {platform.python_version()}, {versions}",
        ]
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
