"""How a flow is shown: as a tree of lines, as JSON, and as a Mermaid graph."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from taskyard.flows.models import EdgeRow, FlowRow, StepRow

MARKS = {"succeeded": "+", "failed": "x", "compensated": "<", "cancelled": "-", "skipped": "~", "running": ">"}
LONGEST = 100  # characters of a result or an error in the tree


def flow_facts(flow: FlowRow) -> dict[str, Any]:
    """Return a flow's row for people and programs."""
    names = ("id", "name", "key", "state", "reason", "steps", "open_steps", "parent_id")
    moments = ("created_at", "started_at", "finished_at")
    return {name: getattr(flow, name) for name in (*names, *moments)}


def step_facts(step: StepRow, after: Sequence[str], members: Mapping[str, int] | None) -> dict[str, Any]:
    """Return a step's row for programs; payloads stay with their runs, where hidden fields are masked."""
    names = ("name", "role", "kind", "task", "state", "attempts", "polls", "run_id", "result", "error")
    moments = ("started_at", "finished_at", "deadline_at")
    facts = {name: getattr(step, name) for name in (*names, *moments)}
    return {**facts, "after": list(after), "members": members}


def tree_lines(
    steps: Sequence[StepRow], edges: Sequence[EdgeRow], members: Mapping[int, Mapping[str, int]]
) -> Iterator[str]:
    """Yield a line for each step: its mark, name, state, counts, and what it waits for."""
    names = {step.seq: step.name for step in steps}
    after: dict[int, list[str]] = {}
    for edge in edges:
        after.setdefault(edge.child, []).append(names[edge.parent])
    width = max((len(_title(step)) for step in steps), default=0)
    for step in steps:
        words = [f"{MARKS.get(step.state, '.')} {_title(step).ljust(width)}  {step.state.ljust(11)}"]
        words += [f"attempt {step.attempts}"] if step.attempts > 1 else []
        words += [f"{step.polls} polls"] if step.polls else []
        if counts := members.get(step.seq):
            words.append(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
        words += [f"after {', '.join(after[step.seq])}"] if step.seq in after else []
        words += [f"= {_short(step.result)}"] if step.result is not None else []
        words += [f"! {_short(step.error)}"] if step.error else []
        yield "  ".join(words)


def mermaid(steps: Sequence[StepRow], edges: Sequence[EdgeRow]) -> Iterator[str]:
    """Yield the lines of a Mermaid flow chart."""
    yield "flowchart TD"
    for step in steps:
        if step.group_seq is None:
            yield f'    s{step.seq}["{step.name}<br/>{step.state}"]'
    for edge in edges:
        label = "" if edge.if_failed == "fail" else f"|{edge.if_failed}|"
        yield f"    s{edge.parent} -->{label} s{edge.child}"
    for step in steps:
        if step.target_seq is not None:
            yield f"    s{step.target_seq} -.undo.-> s{step.seq}"


def _title(step: StepRow) -> str:
    indent = "  " if step.group_seq is not None or step.role == "undo" else ""
    return f"{indent}{step.name}{' (on failure)' if step.role == 'failure' else ''}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
