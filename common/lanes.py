"""The lanes of a run: the streams of training and, beside them, those of evaluation, by the same scripts.

    train   {run}:tickets        {run}:rollouts        {run}:scored        {run}:open        {run}:issued
    eval    {run}:eval:tickets   {run}:eval:rollouts   {run}:eval:scored   {run}:eval:open   {run}:eval:issued

A ticket names its lane and never leaves it; ids are counted in each lane on their own. The fence, the policy, the
heartbeats, the dead letters and the end are those of the run, sigma is moved by training alone.
"""

from __future__ import annotations

from typing import Literal, get_args

Lane = Literal["train", "eval"]
Stage = Literal["tickets", "rollouts", "scored", "eval:tickets", "eval:rollouts", "eval:scored"]
LANES: tuple[Lane, ...] = get_args(Lane)
GROUPS: dict[Stage, str] = {
    "tickets": "actors",
    "rollouts": "scorers",
    "scored": "learner",
    "eval:tickets": "actors",
    "eval:rollouts": "scorers",
    "eval:scored": "learner",
}
"""The consumer group that owns a stage's stream; each lane in the order of the walk."""
NEXT: dict[Stage, Stage] = {
    "tickets": "rollouts",
    "rollouts": "scored",
    "eval:tickets": "eval:rollouts",
    "eval:rollouts": "eval:scored",
}


def lane_of(stage: str) -> Lane:
    """The lane of a stage; what a stranger calls a stage is training's, whose books know no such ticket."""
    return "eval" if stage.startswith("eval:") else "train"


def state_of(stage: Stage) -> str:
    """How the open tickets of either lane call a stage: tickets, rollouts or scored."""
    return stage.removeprefix("eval:")


def named(lane: Lane, name: str) -> str:
    """The key of a lane that training calls `name`."""
    return name if lane == "train" else f"eval:{name}"
