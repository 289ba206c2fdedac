"""Run every system through the same measurements on one server, and print a Markdown table with ratios."""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import redis

from bench.broker.systems import ROOT, RUN, System, systems
from taskyard.broker.server.valkey import EmbeddedValkey

DRAIN = 10_000  # no-op tasks, enqueued before the workers start
SINGLE = 3_000
NAPS = 4_000  # of 50 ms at 100 slots: 2,000/s at the most
PACED = 500  # at 50/s
ROUNDS = 3  # medians are reported
LIMIT = 120.0  # seconds for one measurement


@dataclass
class Numbers:
    """What was measured of one system; None: it cannot do that."""

    values: dict[str, float | None] = field(default_factory=dict)


ROWS: list[tuple[str, str]] = [  # key, title; higher is better unless the title says otherwise
    ("drain1", "no-op drain/s, 2 processes x 1 slot (solo)"),
    ("drain", "no-op drain/s, 2 processes x 10 slots"),
    ("naps", "50 ms tasks/s, 2 processes x 50 slots (limit 2,000)"),
    ("single", "enqueue/s, one call each"),
    ("bulk", "enqueue/s, bulk"),
    ("p50", "pickup at 50/s, p50 ms (lower is better)"),
    ("p99", "pickup at 50/s, p99 ms (lower is better)"),
    ("recovery", "seconds from SIGKILL to the second start, 10 s lease (lower is better)"),
    ("rss", "resident MB per worker process (lower is better)"),
    ("memory", "server MB per 10,000 waiting (lower is better)"),
    ("idle", "CPU % of one idle worker (lower is better)"),
]


def main(words: list[str] | None = None) -> None:
    """Measure all and print the table."""
    parser = argparse.ArgumentParser(prog="bench broker", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which the medians are reported")
    parser.add_argument("--only", metavar="NAMES", default="", help="such as Taskyard,BullMQ; ours comes first")
    options = parser.parse_args(words or [])
    results: dict[str, Numbers] = {}
    folder = RUN / "valkey"
    with EmbeddedValkey(folder, appendfsync="everysec") as server:
        os.environ["BENCH_URL"] = server.url
        client = redis.Redis.from_url(server.url)
        version = client.info("server").get("valkey_version") or client.info("server")["redis_version"]
        print(
            f"- server: Valkey {version}, AOF everysec; medians of {options.rounds} rounds, interleaved\n", flush=True
        )
        wanted = options.only.split(",") if options.only else []
        contestants = [system for system in systems() if not wanted or system.name in wanted]
        for number in range(options.rounds):
            for system in contestants:
                measured = _measure(system, client, is_last=number == options.rounds - 1)
                print(f"{system.name}: {measured}", file=sys.stderr, flush=True)
                for key, value in measured.items():
                    results.setdefault(f"{system.name}:{key}", Numbers()).values[str(number)] = value
    print(_table([system.name for system in contestants], results))


def _measure(system: System, client: redis.Redis, *, is_last: bool) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    drain, single = (DRAIN, SINGLE) if system.has_slots else (DRAIN // 10, SINGLE // 10)  # RQ forks for each job
    with _clean(client):
        before = client.info("memory")["used_memory"]
        found["bulk"] = drain / _produce(system, "bulk", drain)
        found["memory"] = (client.info("memory")["used_memory"] - before) / 2**20 / (drain / 10_000)
        with _workers(system, 2, 10) as processes:
            found["drain"] = _drain_rate(system, client, drain)
            if is_last:
                found["rss"] = statistics.mean(_resident(process) for process in processes)
                found["idle"] = _idle(processes)
    with _clean(client):
        found["single"] = single / _produce(system, "single", single)
        with _workers(system, 2, 1):
            found["drain1"] = _drain_rate(system, client, single)
    if system.has_slots:
        with _clean(client):
            _produce(system, "nap", NAPS)
            with _workers(system, 2, 50):
                found["naps"] = _drain_rate(system, client, NAPS)
    with _clean(client), _workers(system, 1, 10):
        time.sleep(3)  # a worker that has just started is not what is measured
        _produce(system, "paced", PACED)
        _until(lambda: _notes().llen("bench:latency") >= PACED)
        late = sorted(float(value) for value in _notes().lrange("bench:latency", 25, -1))
        found["p50"], found["p99"] = late[len(late) // 2], late[int(len(late) * 0.99)]
    if is_last and system.recovers:
        found["recovery"] = _recovery(system, client)
    return found


def _recovery(system: System, client: redis.Redis) -> float:
    with _clean(client), _workers(system, 1, 1) as (first,):
        _produce(system, "hold", 60)
        _until(lambda: _notes().llen("bench:starts") == 1)
        with _workers(system, 1, 1):
            time.sleep(5)  # the second one is up, and its first look at the queue is over
            killed = time.time()
            _kill(first, signal.SIGKILL)
            _until(lambda: _notes().llen("bench:starts") == 2)
            second = _notes().lindex("bench:starts", 1)
            return float(second or 0) - killed


def _drain_rate(system: System, client: redis.Redis, total: int) -> float:
    """Tasks per second between 10 % and 90 % of the drain."""
    _until(lambda: system.waiting(client) <= total * 0.9, every=0.002)
    high, started = system.waiting(client), time.perf_counter()
    _until(lambda: system.waiting(client) <= total * 0.1, every=0.002)
    low, ended = system.waiting(client), time.perf_counter()
    _until(lambda: system.waiting(client) == 0)
    return (high - low) / (ended - started)


def _produce(system: System, what: str, count: float) -> float:
    command = [*system.produce, what, str(count)]
    done = subprocess.run(command, cwd=ROOT, env=_env(system), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{system.name}: {' '.join(command)} failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


@contextlib.contextmanager
def _workers(system: System, processes: int, slots: int) -> Iterator[list[psutil.Process]]:
    started = []
    with (RUN / "worker.log").open("ab") as log:
        for _ in range(processes):
            command = system.worker(slots)
            popen = subprocess.Popen(
                command, cwd=ROOT, env=_env(system), stdout=log, stderr=log, start_new_session=True
            )
            started.append(popen)
    try:
        yield [psutil.Process(popen.pid) for popen in started]
    finally:
        for popen in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


def _kill(process: psutil.Process, number: signal.Signals) -> None:
    os.killpg(process.pid, number)


def _env(system: System) -> dict[str, str]:
    return {**os.environ, **system.env, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def _resident(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family) / 2**20


def _idle(processes: list[psutil.Process]) -> float:
    """CPU percent of one process over 10 s without work."""
    time.sleep(2)  # the last acknowledgements are sent
    before = [_cpu(process) for process in processes]
    time.sleep(10)  # the time that is measured
    return statistics.mean(_cpu(process) - start for process, start in zip(processes, before, strict=True)) * 10


def _cpu(process: psutil.Process) -> float:
    times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


@contextlib.contextmanager
def _clean(client: redis.Redis) -> Iterator[None]:
    client.flushall()
    yield
    client.flushall()


def _notes() -> redis.Redis:
    """The database that the tasks write to, beside the broker's."""
    return redis.Redis.from_url(os.environ["BENCH_URL"].replace("/0", "/1"))


def _until(condition: Callable[[], bool], every: float = 0.02) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done within {LIMIT:.0f} s")
        time.sleep(every)  # the other systems tell nobody when they are done


def _table(names: list[str], results: dict[str, Numbers]) -> str:
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, title in ROWS:
        cells = []
        ours = _median(results.get(f"{names[0]}:{key}"))
        for name in names:
            value = _median(results.get(f"{name}:{key}"))
            ratio = f" ({ours / value:.2f}x)" if value and ours is not None and name != names[0] else ""
            cells.append("-" if value is None else f"{_short(value)}{ratio}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "In brackets: ours divided by theirs."])


def _median(numbers: Numbers | None) -> float | None:
    known = [value for value in numbers.values.values() if value is not None] if numbers else []
    return statistics.median(known) if known else None


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
