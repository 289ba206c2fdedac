"""What flows and steps can be: their states, roles, kinds and policies, and what names an event."""

from typing import Literal, get_args

type FlowState = Literal["running", "compensating", "succeeded", "failed", "compensated", "cancelled"]
type StepState = Literal[
    "blocked", "queued", "running", "waiting", "succeeded", "failed", "skipped", "cancelled", "compensated"
]
type Role = Literal["step", "undo", "failure"]  # undo: takes back one step; failure: runs when the flow fails
type Kind = Literal["task", "group", "event", "flow"]  # what a step is: only a task has messages of its own
type IfFailed = Literal["fail", "ignore", "continue", "drop"]  # what a parent's final failure means to its child

FLOW_STATES: tuple[FlowState, ...] = get_args(FlowState.__value__)
STEP_STATES: tuple[StepState, ...] = get_args(StepState.__value__)
POLICIES: tuple[IfFailed, ...] = get_args(IfFailed.__value__)
LIVE_FLOWS = ("running", "compensating")
ENDED_FLOWS = ("succeeded", "failed", "compensated", "cancelled")
OPEN_STEPS = ("blocked", "queued", "running", "waiting")
RUNNABLE = ("queued", "waiting", "running")  # a message of the step may run it
MAX_EVENT = 512  # characters of an event's name with its key
