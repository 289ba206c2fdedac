"""Numbers of several processes are added up; those of a process that is gone stay, its gauges do not."""

import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from taskyard.monitor.shared_counts import DEAD, Snapshots, exposition
from tests.monitor.scraping import samples
from tests.workers import ROOT

OTHER = """
import sys
from pathlib import Path
from tests.monitor.test_snapshots import counting
from taskyard.monitor.shared_counts import Snapshots
ours = Snapshots(Path(sys.argv[1]))
ours.write(counting(5))
print("written", flush=True)
sys.stdin.read()
"""


def counting(number: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("taskyard_things", "Things", ("kind",), registry=registry).labels("a").inc(number)
    Gauge("taskyard_level", "Level", registry=registry).set(number)
    Gauge("taskyard_beat_tick_seconds", "Highest", registry=registry).set(number)
    histogram = Histogram("taskyard_lengths", "Lengths", buckets=(1, 10), registry=registry)
    for _ in range(number):
        histogram.observe(5)
    return registry


def seen(snapshots: Snapshots) -> dict[str, float]:
    found = samples(exposition(snapshots.merged()).decode())
    return {
        "things": found["taskyard_things_total", (("kind", "a"),)],
        "level": found.get(("taskyard_level", ()), 0),
        "highest": found.get(("taskyard_beat_tick_seconds", ()), 0),
        "lengths": found["taskyard_lengths_bucket", (("le", "10.0"),)],
        "sum": found["taskyard_lengths_sum", ()],
    }


def test_a_killed_process_keeps_what_it_counted_and_loses_its_gauges(tmp_path: Path) -> None:
    ours = Snapshots(tmp_path)
    ours.write(counting(3))
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"written\n"
    together = seen(ours)
    other.kill()
    other.communicate()

    assert together == {"things": 8, "level": 8, "highest": 5, "lengths": 8, "sum": 40}
    for _ in range(3):
        assert seen(ours) == {"things": 8, "level": 3, "highest": 3, "lengths": 8, "sum": 40}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".alive", ".prom", ".prom"], "folded into one file"
    ours.close()


def test_a_fold_that_was_broken_off_counts_nothing_twice(tmp_path: Path) -> None:
    """Killed after the sums were written and before the dead one's file was removed."""
    (tmp_path / "1-dead.prom").write_bytes(generate_latest(counting(5)))
    ours = Snapshots(tmp_path)
    ours.write(counting(3))
    seen(ours)
    assert (tmp_path / DEAD).exists()
    (tmp_path / "1-dead.prom").write_bytes(generate_latest(counting(5)))

    assert seen(ours)["things"] == 8
    ours.close()
