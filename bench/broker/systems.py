"""The systems under comparison: how each starts a worker, enqueues, and counts what waits."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / ".run" / "bench"
HERE = Path(__file__).parent
OTHERS = ("celery==5.7.0", "celery-redis-plus==0.4.1", "dramatiq[redis]==2.2.1", "rq==3.0.0", "hiredis==3.5.0")
NODE_PACKAGES = ("bullmq@6.7.0", "ioredis@6.0.0")


@dataclass(frozen=True, slots=True)
class System:
    """One task system; commands are argument lists, run with BENCH_URL set."""

    name: str
    produce: tuple[str, ...]  # followed by what and how many
    worker: Callable[[int], tuple[str, ...]]  # slots -> command of one worker process
    waiting: Callable[[redis.Redis], int]
    env: dict[str, str] = field(default_factory=dict)
    has_slots: bool = True  # False: one job at a time per process
    recovers: bool = True  # False: a lost worker's job is not run again by itself


def systems() -> list[System]:
    """Install what is needed (from PyPI and npm) and return the systems, ours first."""
    python = _other_python()
    node_env = {"NODE_PATH": str(_node_modules())}
    return [
        _celery("taskyard", sys.executable, lambda client: client.zcard("taskyard:waiting:bench")),
        _celery("stock", sys.executable, lambda client: client.llen("bench")),
        _celery("plus", python, lambda client: client.zcard("queue:bench")),
        System(
            "BullMQ",
            ("node", str(HERE / "bullmq.cjs")),
            lambda slots: ("node", str(HERE / "bullmq.cjs"), "work", str(slots)),
            lambda client: client.llen("bull:bench:wait"),
            node_env,
        ),
        System(
            "Dramatiq",
            (python, "-m", "bench.broker.dramatiq_app"),
            lambda slots: (python, "-m", "dramatiq", "bench.broker.dramatiq_app", "-p", "1", "-t", str(slots)),
            lambda client: client.llen("dramatiq:bench"),
        ),
        System(
            "RQ",
            (python, "-m", "bench.broker.rq_app"),
            lambda _: (python, "-m", "rq.cli", "worker", "-q", "-u", os.environ["BENCH_URL"], "bench"),
            lambda client: client.llen("rq:queue:bench"),
            has_slots=False,
            recovers=False,
        ),
    ]


def _celery(transport: str, python: str, waiting: Callable[[redis.Redis], int]) -> System:
    names = {"taskyard": "Taskyard", "stock": "Celery, stock kombu", "plus": "Celery, celery-redis-plus"}

    def worker(slots: int) -> tuple[str, ...]:
        pool = ("-P", "solo") if slots == 1 else ("-P", "threads", "-c", str(slots))
        quiet = ("-l", "WARNING", "--without-gossip", "--without-mingle", "-n", f"w{os.urandom(4).hex()}@%h")
        return (python, "-m", "celery", "-A", "bench.broker.celery_app", "worker", *pool, *quiet)

    return System(
        names[transport],
        (python, "-m", "bench.broker.celery_produce"),
        worker,
        waiting,
        {"BENCH_TRANSPORT": transport},
    )


def _other_python() -> str:
    """Make an environment of their own for the Python systems, once."""
    python = RUN / "venv" / "bin" / "python"
    if not python.exists():
        RUN.mkdir(parents=True, exist_ok=True)
        uv = ROOT / ".run" / "uv" / "bin" / "uv"
        tool = str(uv) if uv.exists() else "uv"
        subprocess.run([tool, "venv", "-q", "--python", sys.executable, str(RUN / "venv")], check=True)
        subprocess.run([tool, "pip", "install", "-q", "--python", str(python), *OTHERS], check=True)
    return str(python)


def _node_modules() -> Path:
    """Install BullMQ and its client, once."""
    folder = RUN / "node"
    if not (folder / "node_modules" / "bullmq").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *NODE_PACKAGES]
        subprocess.run(command, cwd=folder, check=True)
    return folder / "node_modules"
