"""The library's shape: no moment computed at import."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("audit", "beat", "config", "scripts", "tasks", "taskyard", "tests")
CLOCKS = {"monotonic", "now", "perf_counter", "time", "today", "utc_now", "utcnow"}


def test_no_module_computes_a_moment_when_it_is_imported() -> None:
    """It would be right for the first minutes only: a test's `now` plus an hour fails an hour after its collection."""
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for folder in OURS
        for path in (ROOT / folder).rglob("*.py")
        for call in calls_at_import(ast.parse(path.read_text()))
        if name_of(call.func) in CLOCKS
    ]
    assert found == []


def calls_at_import(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls that run when the module is imported: also in decorators, defaults and class bodies."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call):
            yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            waiting.extend([*node.decorator_list, *defaults])
        elif not isinstance(node, ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
