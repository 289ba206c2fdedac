"""`make conformance`: fetch both suites, run each on both transports, and print what differs."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scripts.conformance.differences import TABLE, Reason, known_reasons, unexplained, unused, worse_on_ours
from scripts.conformance.suites import ROOT, SUITES, run_suite

if TYPE_CHECKING:
    from scripts.conformance.suites import Outcomes, Suite, TransportName

FOLDER = ROOT / ".run" / "conformance"  # archives, and the logs of the last run


@click.command()
@click.option("--only", type=click.Choice([suite.package for suite in SUITES]), help="Run one suite.")
def conformance(only: str | None) -> None:
    """Run Celery's and kombu's own integration tests on our transport and on kombu's."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    reasons = known_reasons(TABLE.read_text())
    suites = [suite for suite in SUITES if only in {None, suite.package}]
    is_same = [_compare(suite, reasons) for suite in suites]
    click.echo(f"logs: {FOLDER.relative_to(ROOT)}")
    sys.exit(0 if all(is_same) else 1)


def _compare(suite: Suite, reasons: list[Reason]) -> bool:
    with ThreadPoolExecutor(2) as both:
        running = [both.submit(_run_whole, suite, name) for name in ("taskyard", "kombu")]
        (root, ours), (_, kombus) = [one.result() for one in running]
    differing = worse_on_ours(ours, kombus)
    new = unexplained(differing, reasons)
    if new:  # many of their tests depend on time: one more chance, alone
        again = run_suite(suite, root, "taskyard", new)
        passed = {test for test in new if again.get(test) == "passed"}
        differing, new = (
            [test for test in differing if test not in passed],
            [test for test in new if test not in passed],
        )
    stale = unused(differing, reasons, kombus)
    _print(suite, ours, kombus, differing, reasons)
    for test in new:
        click.echo(f"  NOT LISTED  {test}")
    for reason in stale:
        click.echo(f"  LISTED, BUT PASSES  {reason.pattern}")
    return not new and not stale and "passed" in kombus.values()


def _run_whole(suite: Suite, transport: TransportName) -> tuple[Path, Outcomes]:
    folder = FOLDER / transport
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    root = suite.fetch(FOLDER, folder)
    return root, run_suite(suite, root, transport)


def _print(suite: Suite, ours: Outcomes, kombus: Outcomes, differing: list[str], reasons: list[Reason]) -> None:
    passed, of_kombu = (list(outcomes.values()).count("passed") for outcomes in (ours, kombus))
    click.echo(f"{suite.package}: {passed} passed on ours, {of_kombu} on kombu's transport, of {len(kombus)}")
    for test in differing:
        why = next((reason.why for reason in reasons if reason.covers(test)), None)
        if why is not None:
            click.echo(f"  {test}: {why}")


if __name__ == "__main__":
    conformance()
