"""Tables of flows: one row a flow, one a step, one an edge. They are the truth; messages only carry work."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Index, UniqueConstraint, text
from sqlmodel import Field

from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now
from taskyard.database.tables import TaskyardTable
from taskyard.flows.states import MAX_EVENT

MAX_NAME = 255  # characters of a flow's or step's name, and of a key
MAX_REASON = 2000  # characters of a reason or an error


def moment(*, nullable: bool = True) -> Any:
    """Declare a column that holds a moment in UTC."""
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable))


def index_of_some(name: str, column: str) -> Index:
    """Declare an index of the rows that have a value in this column: most have none, and cost nothing then."""
    given = text(f"{column} IS NOT NULL")
    return Index(name, column, sqlite_where=given, postgresql_where=given)


class FlowRow(TaskyardTable, table=True):
    """One flow."""

    __tablename__ = "taskyard_flows"
    __table_args__ = (
        UniqueConstraint("key", name="uq_taskyard_flows_key"),
        Index("ix_taskyard_flows_newest", "created_at", "id"),
        Index("ix_taskyard_flows_state", "state", "created_at"),
        Index("ix_taskyard_flows_check", "check_at"),
        Index("ix_taskyard_flows_parent", "parent_id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(max_length=MAX_NAME)
    key: str | None = Field(default=None, max_length=MAX_NAME)  # of one key there is one flow
    state: str = Field(default="running", max_length=16)  # one of states.FLOW_STATES
    ending: str | None = Field(
        default=None, max_length=16
    )  # failed or cancelled: what it will be, once it has tidied up
    reason: str | None = None  # why it ended so; bounded text
    steps: int = 0  # all of them, with undo and failure steps
    open_steps: int = 0  # of role `step`, not ended yet
    guards: int = 0  # undo and failure steps
    deadline_seconds: float | None = None
    check_at: datetime | None = moment()  # its deadline, while it is open
    parent_id: UUID | None = None  # the flow that waits for this one
    parent_seq: int | None = None
    created_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    started_at: datetime | None = moment()  # of the newest start or resume
    finished_at: datetime | None = moment()


class StepRow(TaskyardTable, table=True):
    """One step of a flow."""

    __tablename__ = "taskyard_flow_steps"
    __table_args__ = (
        UniqueConstraint("flow_id", "name", name="uq_taskyard_flow_steps_name"),
        index_of_some("ix_taskyard_flow_steps_check", "check_at"),
        index_of_some("ix_taskyard_flow_steps_event", "event"),
        Index("ix_taskyard_flow_steps_run", "run_id"),
        Index("ix_taskyard_flow_steps_group", "flow_id", "group_seq", "seq"),
    )

    flow_id: UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True)  # place in the definition, from 0
    name: str = Field(max_length=MAX_NAME)
    role: str = Field(default="step", max_length=8)
    kind: str = Field(default="task", max_length=8)
    task: str | None = Field(default=None, max_length=MAX_NAME)  # name of the platform task
    payload: Any = Field(default=None, sa_column=Column(JsonColumn))
    options: Any = Field(default=None, sa_column=Column(JsonColumn))  # poll, queue, priority, ... see definition
    state: str = Field(default="blocked", max_length=16)  # one of states.STEP_STATES
    generation: int = 0  # times it was released; with the flow and seq it names one run
    run_id: str | None = Field(default=None, max_length=155)
    waits_for: int = 0  # parents, or members of a group, that have not ended
    group_seq: int | None = None  # the group that it is a member of
    target_seq: int | None = None  # of an undo: the step that it takes back
    next_member: int | None = None  # of a group: seq of the first member that was not released yet
    if_failed: str = Field(default="fail", max_length=8)  # of a group: what a member's failure means
    is_cleanup: bool = False  # its failure fails nothing
    is_counted: bool = False  # its children know how it ended: a later success tells them nothing
    attempts: int = 0  # executions of this generation that began
    polls: int = 0  # times that it was still pending
    result: Any = Field(default=None, sa_column=Column(JsonColumn))
    error: str | None = None  # bounded text
    event: str | None = Field(default=None, max_length=MAX_EVENT)  # that it waits for, with its key: "event:key"
    deadline_seconds: float | None = None  # from its release
    deadline_at: datetime | None = moment()
    check_at: datetime | None = moment()  # the sweeper looks at it then; None: never
    started_at: datetime | None = moment()  # first start
    finished_at: datetime | None = moment()


class EdgeRow(TaskyardTable, table=True):
    """One dependency: the child waits for the parent."""

    __tablename__ = "taskyard_flow_edges"
    __table_args__ = (Index("ix_taskyard_flow_edges_child", "flow_id", "child"),)

    flow_id: UUID = Field(primary_key=True)
    parent: int = Field(primary_key=True)
    child: int = Field(primary_key=True)
    if_failed: str = Field(default="fail", max_length=8)
