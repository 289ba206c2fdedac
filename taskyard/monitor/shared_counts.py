"""
Metrics of several processes on one host, added up: each writes its own file, one process answers for all.

A process holds a lock on its file while it runs. Its counters stay in the sums after its exit, since a counter must not
decrease; its gauges are removed. Files of exited processes are merged into one that lists its sources, so that an
interrupted merge counts nothing twice.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

GROWING = ("counter", "histogram")
DEAD = "dead.prom"
HOLDS = "# holds "  # then names of files whose numbers are in it
HIGHEST = frozenset(("taskyard_beat_tick_seconds",))  # gauges of which the highest counts; all others are added up


class Snapshots:
    """The folder that the processes of one port share."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, and the file whose lock says that this process lives."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._alive: IO[str] = (folder / f"{self._name}.alive").open("w")
        fcntl.lockf(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._written = b""

    def write(self, registry: CollectorRegistry) -> None:
        """Write this process's numbers, if they changed."""
        text = generate_latest(registry)
        if text != self._written:
            _replace(self._folder / f"{self._name}.prom", text)
            self._written = text

    def close(self) -> None:
        """Give the lock up: this process counts as dead from now on."""
        self._alive.close()
        (self._folder / f"{self._name}.alive").unlink(missing_ok=True)

    def merged(self) -> list[Metric]:
        """Return the sums over all processes; only the one that answers for all may call it."""
        self._fold_dead()
        texts = [path.read_text() for path in sorted(self._folder.glob("*.prom"))]
        return merge([family for text in texts for family in text_string_to_metric_families(text)])

    def _fold_dead(self) -> None:
        whole = self._folder / DEAD
        old = whole.read_text() if whole.exists() else ""
        held = old.splitlines()[0].removeprefix(HOLDS).split() if old.startswith(HOLDS) else []
        for name in held:
            self._forget(name)
        gone = [
            path.stem for path in self._folder.glob("*.prom") if path.name != DEAD and not self._is_alive(path.stem)
        ]
        if not gone:
            return
        texts = [old, *((self._folder / f"{name}.prom").read_text() for name in gone)]
        families = [family for text in texts for family in text_string_to_metric_families(text)]
        sums = generate_latest(_FixedRegistry(merge(family for family in families if family.type in GROWING)))
        _replace(whole, f"{HOLDS}{' '.join(gone)}\n".encode() + sums)
        for name in gone:
            self._forget(name)

    def _forget(self, name: str) -> None:
        for suffix in (".prom", ".alive"):
            (self._folder / f"{name}{suffix}").unlink(missing_ok=True)

    def _is_alive(self, name: str) -> bool:
        if name == self._name:
            return True
        try:
            with (self._folder / f"{name}.alive").open("r+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:  # locked by its owner
            return True
        return False


def merge(families: Iterable[Metric]) -> list[Metric]:
    """Add up samples of the same name and labels."""
    merged: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in families:
        merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        sums = values.setdefault(family.name, {})
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            key = (sample.name, tuple(sorted(sample.labels.items())))
            before = sums.get(key, 0.0)
            sums[key] = max(before, sample.value) if family.name in HIGHEST else before + sample.value
    for name, sums in values.items():
        for (sample_name, labels), value in sums.items():
            merged[name].add_sample(sample_name, dict(labels), value)
    return list(merged.values())


class _FixedRegistry(CollectorRegistry):
    """A registry that holds these families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        found = list(families)

        class Given(Collector):
            def collect(self) -> Iterable[Metric]:
                return found

        self.register(Given())


def exposition(families: Iterable[Metric]) -> bytes:
    """Return families in Prometheus' text format."""
    return generate_latest(_FixedRegistry(families))


def _replace(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
