"""Empty environments with nothing but the wheel, what it needs, and Django."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300  # seconds; packages may have to be fetched
DJANGO = ("django", "asgiref", "sqlparse")


def build_distributions(folder: Path) -> tuple[Path, Path]:
    """Build as `make dist` does; return the wheel and the source distribution."""
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def make_environment(folder: Path, python: str, package: Path) -> Path:
    """Install a distribution of ours, the locked packages and Django; return the folder of its programs."""
    uv = find_uv_bin()
    _run([uv, "venv", "--quiet", "--no-python-downloads", "--python", find_python(python), str(folder)], ROOT)
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    _run([*install, "--require-hashes", "-r", "requirements.lock"], ROOT)
    _run([*install, "--no-deps", "hatchling", *(f"{name}=={version(name)}" for name in DJANGO)], ROOT)
    _run([*install, "--no-deps", str(package)], ROOT)
    return folder / "bin"


def find_python(wanted: str) -> str:
    """
    Return the path of a Python of this version.

    Where CI runs, one that is missing is a failure; elsewhere it is a skipped test.
    """
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for path in (shutil.which(f"python{wanted}"), *homes.glob(f"{wanted}*/bin/python{wanted}")):
        if path and subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0:
            return str(path)
    if os.environ.get("CI"):
        pytest.fail(f"no Python {wanted} on this machine")
    pytest.skip(f"no Python {wanted} on this machine: the wheel is tried with those that are there")


def _run(command: list[str], folder: Path) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 0, ended.stderr
