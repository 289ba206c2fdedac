"""The state of backups in numbers, for metrics."""

from collections.abc import Iterable, Iterator

from sqlmodel import Session

from tasks.backups.queries import newest_of_each
from taskyard.gauges import GaugeSample


def figures(session: Session) -> Iterator[GaugeSample]:
    """Give the figures of every target that was verified at least once."""
    for target, row in sorted(newest_of_each(session).items()):
        label = {"target": target}
        passed = float(row.state == "passed")
        yield GaugeSample("taskyard_backup_passed", "1 if the newest run passed", passed, label)
        started_at = row.started_at.timestamp()
        yield GaugeSample("taskyard_backup_last_run_seconds", "When it started (Unix)", started_at, label)
        if row.duration_ms is not None:
            yield GaugeSample("taskyard_backup_duration_seconds", "How long it took", row.duration_ms / 1000, label)
        if row.dump_bytes is not None:
            yield GaugeSample("taskyard_backup_dump_bytes", "Size of the dump", float(row.dump_bytes), label)
    for target, row in sorted(newest_of_each(session, "passed").items()):
        good_at = row.started_at.timestamp()
        help_text = "When the last good run started (Unix)"
        yield GaugeSample("taskyard_backup_last_good_seconds", help_text, good_at, {"target": target})


def as_prometheus(values: Iterable[GaugeSample]) -> str:
    """Return the figures in Prometheus' text format, grouped by name. Source: Prometheus, "Text format"."""
    groups: dict[str, list[GaugeSample]] = {}
    for figure in values:
        groups.setdefault(figure.name, []).append(figure)
    lines = []
    for name, group in groups.items():
        lines += [f"# HELP {name} {group[0].help}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{target="{figure.labels["target"]}"}} {figure.value!r}' for figure in group]
    return "".join(f"{line}\n" for line in lines)
