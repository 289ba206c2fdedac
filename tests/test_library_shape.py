"""The library's shape: names that mean one thing, no moment computed at import."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("audit", "beat", "config", "scripts", "tasks", "taskyard", "tests")
CLOCKS = {"monotonic", "now", "perf_counter", "time", "today", "utc_now", "utcnow"}

# Names that several modules have for a reason; without one, a module gets a name of its own.
ROLE = "a file of this name has the same role in each domain"
NOUN = "the command line has a module for each noun, named as what it shows"
SHARED_MODULES = {
    "commands": "each folder of the command line has one, with the verbs of its group",
    "dead_letters": "the rows in history, and the task that writes and redrives them in tasks",
    "doctor": NOUN,
    "engine": "the database's engine, as SQLAlchemy calls it; the folder of the scheduler's loop",
    "errors": ROLE,
    "flows": NOUN,
    "handlers": ROLE,
    "loading": "each reads what its folder works with: settings, schedules",
    "metrics": ROLE,
    "models": ROLE,
    "outcomes": "what ends an execution: a message's in the broker, a step's in a flow",
    "payloads": ROLE,
    "queries": ROLE,
    "queues": NOUN,
    "retention": ROLE,
    "store": ROLE,
    "tables": "of the database; printed ones",
    "tasks": ROLE,
    "timing": "the phases of a request; the folder about when schedules are due",
    "transport": "kombu looks for a class Transport in a module transport, which is in the folder about it",
    "webhooks": NOUN,
}
SHARED_CLASSES: dict[str, str] = {}


def library() -> dict[str, Path]:
    """The library's modules by their dotted names."""
    found = {}
    for path in (ROOT / "taskyard").rglob("*.py"):
        words = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def test_no_two_classes_of_the_library_share_a_name_without_a_reason() -> None:
    places = defaultdict(list)
    for module, path in library().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):  # those are seen in their module only
                places[node.name].append(module)
    assert problems(places, SHARED_CLASSES) == []


def test_no_two_modules_of_the_library_share_a_name_without_a_reason() -> None:
    places = defaultdict(list)
    for module in library():
        places[module.rpartition(".")[2]].append(module)
    assert problems(places, SHARED_MODULES) == []


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


def problems(places: dict[str, list[str]], reasons: dict[str, str]) -> list[str]:
    """The shared names without a reason, and the reasons that nothing needs any more."""
    shared = {name: modules for name, modules in places.items() if len(modules) > 1}
    unexplained = [f"{name}: {', '.join(shared[name])}" for name in shared.keys() - reasons.keys()]
    return sorted(unexplained) + [f"{name} is not shared" for name in sorted(reasons.keys() - shared.keys())]


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
