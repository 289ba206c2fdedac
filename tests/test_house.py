"""The house's papers say what is so: settings, examples, commands, addresses, sizes."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from celery.bin.celery import celery as celery_command
from click.testing import CliRunner
from dotenv import dotenv_values

from scripts.settings_reference import ENV_EXAMPLE, TABLE, env_example, settings_table
from tasks.app import app
from taskyard.settings.loading import load_settings, setting_groups
from tests.commands import OUR_COMMANDS

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 300  # of a file
MOST_FUNCTION_LINES = 40
OF_DOMAINS = {each.name for domain in app.domains for each in domain.commands}
WRITE_THEM = "run: .venv/bin/python -m scripts.settings_reference"


def test_the_env_example_is_written_from_the_settings() -> None:
    assert ENV_EXAMPLE.read_text() == env_example(), WRITE_THEM


def test_the_table_of_settings_is_written_from_the_settings() -> None:
    assert TABLE.read_text() == settings_table(), WRITE_THEM


def test_a_copy_of_the_env_example_changes_nothing() -> None:
    given = {name: value or "" for name, value in dotenv_values(ENV_EXAMPLE).items()}
    assert set(given) == {name.upper() for group in setting_groups() for name in group.model_fields}
    for group in setting_groups():
        assert load_settings(given, group=group) == load_settings({}, group=group)


def test_every_page_is_listed_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_every_group_is_an_entry_point_or_of_a_domain() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = {name: f"taskyard.cli.commands:{name}" for name in OUR_COMMANDS if name not in OF_DOMAINS}
    assert project["entry-points"]["celery.commands"] == entries


@pytest.mark.parametrize("group", OUR_COMMANDS)
def test_every_command_explains_itself(group: str) -> None:
    for words in _commands_of(group):
        ended = CliRunner().invoke(celery_command.commands[group], [*words, "--help"])
        assert ended.exit_code == 0, (words, ended.output)
        assert "Usage:" in ended.output, words


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    ended = subprocess.run([ROOT / "scripts" / "no-addresses"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("setup.cfg", "url = https://py" + "pi.org/simple"),
        ("notes.md", "see " + "/ro" + "ot/.cache"),
        ("requirements.lock", "package @ https://example.com/package.whl"),
    ],
)
def test_the_search_for_addresses_bites(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "no-addresses"
    script.write_bytes((ROOT / "scripts" / "no-addresses").read_bytes())
    script.chmod(0o755)
    (tmp_path / "harmless.md").write_text("a/root/b and https://example.com/work\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    assert subprocess.run([script], cwd=tmp_path, check=False).returncode == 0
    (tmp_path / name).write_text(f"{text}\n")
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    assert subprocess.run([script], cwd=tmp_path, check=False).returncode == 1


def test_files_are_short_and_functions_fit_a_screen() -> None:
    found = []
    for path in _python_files():
        if (
            "migrations" in path.relative_to(ROOT).parts[:-1] and path.name[0].isdigit()
        ):  # written by a program, one statement for each column
            continue
        text = path.read_text()
        lines = text.count("\n")
        if lines >= MOST_LINES:
            found.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _length(node)
                if length > MOST_FUNCTION_LINES:
                    found.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines")
    assert found == []


def test_every_python_file_says_its_job_first() -> None:
    silent = [path for path in _python_files() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def _commands_of(group: str) -> Iterator[tuple[str, ...]]:
    """Yield the words after `group` that lead to each of its commands, and to the group itself."""

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk(child, (*words, name))

    return walk(celery_command.commands[group], ())


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring."""
    first, last = function.body[0], function.body[-1]
    documented = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (last.end_lineno or 0) - function.lineno + 1 - documented


def _python_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]
