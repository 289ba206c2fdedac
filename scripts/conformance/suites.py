"""The integration tests of the installed Celery and kombu, from their source distributions, and how one is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.etree import ElementTree as ET

from taskyard.broker.server.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT = 120  # seconds for one of their tests
PLUGINS = ("no:randomly", "no:cacheprovider", "no:xdist")

type TransportName = Literal["taskyard", "kombu"]
type Outcomes = dict[str, str]  # node id -> passed, skipped or failed


class Suite(NamedTuple):
    """What is run of one package."""

    package: str
    tests: str  # below its source distribution
    parts: tuple[str, ...]  # what is unpacked of it: the package itself is tested as it is installed

    def fetch(self, archives: Path, folder: Path) -> Path:
        """
        Unpack the tests of the installed version, downloaded into `archives` if they are not there; returns their root.

        Raises:
            subprocess.CalledProcessError: The package client failed, and has said why.
        """
        requirement = f"{self.package}=={version(self.package)}"
        archive = archives / f"{requirement.replace('==', '-')}.tar.gz"
        if not archive.exists():
            pip = [str(Path(sys.executable).with_name("uv")), "tool", "run", "pip"]
            source = ["-qq", "--no-deps", "--no-binary", ":all:", "--dest", str(archives), requirement]
            subprocess.run([*pip, "download", *source], check=True)  # noqa: S603 - fixed words
        with tarfile.open(archive) as packed:
            roots = tuple(f"{archive.name.removesuffix('.tar.gz')}/{part}" for part in self.parts)
            packed.extractall(folder, [one for one in packed if one.name.startswith(roots)], filter="data")
        return folder / archive.name.removesuffix(".tar.gz")


SUITES = (
    Suite("kombu", "t/integration/test_redis.py", ("t/", "setup.cfg")),
    Suite("celery", "t/integration", ("t/", "pyproject.toml")),
)


def run_suite(suite: Suite, root: Path, transport: TransportName, tests: Sequence[str] = ()) -> Outcomes:
    """
    Run a suite, or some of its tests, on an empty Valkey of its own; `root` is where its tests were unpacked.

    Raises:
        FileNotFoundError: pytest wrote no report; its log beside `root` says why.
    """
    report = root.with_name(f"{suite.package}-{transport}{'-again' if tests else ''}.xml")
    is_ours = transport == "taskyard"
    overrides = {"worker_consumer": "taskyard.broker.worker.consumer:Consumer"} if is_ours else {}
    (root / "integration-tests-config.json").write_text(json.dumps(overrides))  # Celery's tests read it
    plugins = [*PLUGINS, "scripts.conformance.our_transport"] if is_ours else PLUGINS
    command = [sys.executable, "-m", "pytest", "-q", *(word for plugin in plugins for word in ("-p", plugin))]
    command += [
        f"--timeout={TIMEOUT}",
        f"--junitxml={report}",
        "-o",
        "junit_family=xunit1",
        "--continue-on-collection-errors",
        *(tests or [suite.tests]),
    ]
    with (
        EmbeddedValkey(report.with_suffix(".server"), appendfsync="no") as server,
        report.with_suffix(".log").open("wb") as log,
    ):
        subprocess.run(command, cwd=root, env=_environment(server), stdout=log, stderr=log, check=False)  # noqa: S603 - fixed words
    return read_report(report)


def _environment(server: EmbeddedValkey) -> dict[str, str]:
    """What both suites read."""
    port = str(server.port)
    address = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": port, "REDIS_6379_TCP": port}
    return {**os.environ, **address, "TEST_BROKER": server.url, "TEST_BACKEND": server.url, "PYTHONPATH": str(ROOT)}


def read_report(path: Path) -> Outcomes:
    """
    Return the outcome of each test in a JUnit report.

    Raises:
        FileNotFoundError: There is no report.
    """
    outcomes: Outcomes = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - pytest has just written it
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = _node_id(case.get("file") or "", case.get("classname") or "", case.get("name") or "")
        outcomes[name] = "failed" if "failed" in {outcome, outcomes.get(name)} else outcome  # an error at its end
    return outcomes


def _node_id(file: str, classname: str, name: str) -> str:
    classes = classname.removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
    return "::".join(part for part in (file, classes.replace(".", "::"), name) if part)
