"""`celery -A tasks flows`: list, show, and steer flows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import click
from sqlmodel import col

from taskyard.cli.flows.drawing import flow_facts, mermaid, step_facts, tree_lines
from taskyard.cli.kit.common_options import (
    change_options,
    check_confirmed,
    destructive_options,
    json_option,
    page_options,
    read_json_object,
    since_option,
    until_option,
)
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import IdParam
from taskyard.cli.kit.output import print_facts, print_json, print_result, printable
from taskyard.cli.kit.tables import print_table
from taskyard.database.engine import open_session
from taskyard.flows import steering
from taskyard.flows.models import FlowRow
from taskyard.flows.queries import FlowFilter, edges_of, find_flow, list_flows, member_counts, steps_of
from taskyard.flows.rules.repair import NotPossibleError
from taskyard.flows.states import FLOW_STATES

flow_argument = click.argument("flow_id", metavar="FLOW", type=IdParam("flow", col(FlowRow.id)))
step_argument = click.argument("step")
MOST_NAMED = 20  # steps in a line


@click.group("flows")
def group() -> None:
    """Flows: list, show, resume, retry a step, skip, approve, cancel."""


@group.command("ls", cls=OperatorCommand)
@click.option("--name", metavar="NAME", help="Of this name.")
@click.option("--state", type=click.Choice(FLOW_STATES), help="In this state.")
@click.option("--key", metavar="KEY", help="Started with this key.")
@since_option
@until_option
@page_options
@json_option
def ls(*, limit: int, after: str | None, as_json: bool, **filters: Any) -> None:
    """List flows, the newest first."""
    with open_session() as session:
        page = list_flows(session, FlowFilter(**filters), limit=limit, after=after)
    if as_json:
        print_json({"items": [flow_facts(flow) for flow in page.rows], "next": page.after})
        return
    columns = ("id", "name", "state", "steps", "to do", "created (UTC)", "key", "reason")
    rows = [
        (flow.id, flow.name, flow.state, flow.steps, flow.open_steps, flow.created_at, flow.key, flow.reason)
        for flow in page.rows
    ]
    print_table(columns, rows)
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("show", cls=OperatorCommand)
@flow_argument
@click.option("--graph", "is_graph", is_flag=True, help="Print a Mermaid flow chart.")
@json_option
def show(*, flow_id: UUID, is_graph: bool, as_json: bool) -> None:
    """Show one flow with its steps; of large groups the first members, and those that failed."""
    with open_session() as session:
        flow = find_flow(session, flow_id)
        if flow is None:
            raise NotFoundError(f"no flow {flow_id}")
        steps, edges, members = steps_of(session, flow_id), edges_of(session, flow_id), member_counts(session, flow_id)
    if is_graph and not as_json:
        for line in mermaid(steps, edges):
            click.echo(
                printable(line, limit=None) if line.strip() == line else f"    {printable(line.strip(), limit=None)}"
            )
        return
    if as_json:
        names = {step.seq: step.name for step in steps}
        after = {step.seq: [names[edge.parent] for edge in edges if edge.child == step.seq] for step in steps}
        listed = [step_facts(step, after[step.seq], members.get(step.seq)) for step in steps]
        graph = {"graph": "\n".join(mermaid(steps, edges))} if is_graph else {}
        print_json({**flow_facts(flow), "step_list": listed, **graph})
        return
    print_facts({name: value for name, value in flow_facts(flow).items() if value is not None})
    click.echo()
    for line in tree_lines(steps, edges, members):
        click.echo(printable(line, limit=None))


@group.command("resume", cls=OperatorCommand)
@flow_argument
@change_options
@json_option
def resume(*, flow_id: UUID, reason: str, as_json: bool) -> None:
    """Run a failed, compensated or cancelled flow on; what succeeded and was not undone stays."""
    with _one_line():
        names = steering.resume_flow(flow_id, reason)
    print_result(f"{flow_id} resumed; it runs {_in_short(names)}", as_json=as_json, id=flow_id, steps=names)


@group.command("retry-step", cls=OperatorCommand)
@flow_argument
@step_argument
@change_options
@json_option
def retry_step(*, flow_id: UUID, step: str, reason: str, as_json: bool) -> None:
    """Run a failed step again; a flow that ended by it is resumed."""
    with _one_line():
        names = steering.retry_flow_step(flow_id, step, reason)
    print_result(f"{flow_id} runs {_in_short(names)}", as_json=as_json, id=flow_id, step=step, steps=names)


@group.command("skip", cls=OperatorCommand)
@flow_argument
@step_argument
@destructive_options(needs_reason=True)
@json_option
def skip(*, flow_id: UUID, step: str, reason: str, as_json: bool, **consent: bool) -> None:
    """Take a step as done without running it."""
    check_confirmed(**consent, reason=reason, needs_reason=True)
    dry_run = consent["dry_run"]
    if not dry_run:
        with _one_line():
            steering.skip_flow_step(flow_id, step, reason)
    verb = "would skip" if dry_run else "skipped"
    print_result(f"{flow_id} {verb} {step}", as_json=as_json, id=flow_id, step=step, dry_run=dry_run)


@group.command("approve", cls=OperatorCommand)
@flow_argument
@step_argument
@click.option("--value", metavar="JSON", help="An object that becomes the step's result.")
@change_options
@json_option
def approve(*, flow_id: UUID, step: str, value: str | None, reason: str, as_json: bool) -> None:
    """Approve a step that waits for a person, or stand in for its event."""
    with _one_line():
        given = read_json_object(value, "--value") if value is not None else None
        steering.approve_step(flow_id, step, given, reason)
    print_result(f"{flow_id} approved {step}", as_json=as_json, id=flow_id, step=step)


@group.command("cancel", cls=OperatorCommand)
@flow_argument
@destructive_options(needs_reason=False)
@json_option
def cancel(*, flow_id: UUID, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Cancel a flow: nothing new begins, what succeeded is undone, failure steps run."""
    check_confirmed(yes=yes, dry_run=dry_run)
    if not dry_run:
        with _one_line():
            steering.cancel_flow(flow_id, reason)
    verb = "would be" if dry_run else "is"
    print_result(f"{flow_id} {verb} cancelled", as_json=as_json, id=flow_id, dry_run=dry_run)


def _in_short(names: Sequence[str]) -> str:
    """Name steps for people: of groups not the members, and of many the first ones."""
    shown = [name for name in names if not name.endswith("]")] or list(names)
    rest = f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else ""
    return f"{', '.join(shown[:MOST_NAMED])}{rest}"


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        raise NotFoundError(str(error)) from error
    except NotPossibleError as error:
        raise FailedError(str(error)) from error
