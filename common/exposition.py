"""What a process says of itself and its run, as Prometheus metrics. Names follow its conventions: base units, `_total`.

Labels are bounded: stages, lanes, outcomes and statuses of ours, never a consumer, a prompt or what a stranger wrote.
What is not known is NaN and never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from common.errors import HeroError
from common.lanes import GROUPS, Stage
from common.onlooker import Onlooker
from common.schema import STATUSES


@dataclass(frozen=True)
class _Known:
    """A number of a heartbeat."""

    key: str
    kind: Literal["counter", "gauge"]
    name: str
    help: str


HEARTBEATS: dict[str, tuple[_Known, ...]] = {
    "actor": (
        _Known("tokens", "counter", "hero_actor_tokens", "Tokens sampled."),
        _Known("completions", "counter", "hero_actor_completions", "Completions that ended."),
        _Known("busy_s", "counter", "hero_actor_busy_seconds", "Time in which the engine sampled."),
        _Known("load_s", "counter", "hero_actor_weight_load_seconds", "Time in which new weights kept it from that."),
        _Known("groups", "gauge", "hero_actor_groups_in_flight", "Groups being sampled."),
        _Known("max_logprob_difference", "gauge", "hero_actor_logprob_difference_max", "Engine against learner."),
    ),
    "scorer": (
        _Known("groups", "counter", "hero_scorer_groups", "Groups scored."),
        _Known("verify_s", "counter", "hero_scorer_verify_seconds", "Time in the verifier."),
        _Known("model_s", "counter", "hero_scorer_reward_model_seconds", "Time in the reward model."),
    ),
    "learner": (
        _Known("steps", "gauge", "hero_learner_steps_wanted", "Steps that the run is to have."),
        _Known("max_staleness", "gauge", "hero_learner_max_staleness", "Oldest group that is trained on, in steps."),
        _Known("ready", "gauge", "hero_learner_groups_ready", "Scored groups that wait for the next step."),
    ),
}
EVERYBODY = (
    _Known("step", "gauge", "hero_policy_step", "Step of the policy that this process works with."),
    _Known("untold", "counter", "hero_untold", "Points of curves and spans of traces that could not be passed on."),
    _Known("waits_s", "gauge", "hero_waiting_seconds", "How long it has waited for what it waits for; 0: it does not."),
)
OUTCOMES = ("issued", "in_flight", "trained", "evaluated", "dropped", "dead_lettered")
OF_STEP = {
    "reward_mean": "Mean reward of the last batch.",
    "accuracy": "Share of its completions that the verifier takes for right.",
    "rm_score_mean": "Mean score of the reward model in it.",
    "rm_auroc_mixed_groups": "AUROC of the reward model within its mixed groups.",
    "weight_mean": "Mean HERO weight in it.",
    "uniform_group_share": "Share of its groups with one verdict for all.",
    "staleness_mean": "Mean staleness of its groups, in steps.",
    "staleness_max": "Largest staleness of its groups, in steps.",
    "completion_tokens_mean": "Mean length of its completions.",
    "truncated_share": "Share of its completions that were cut off.",
    "entropy": "Mean entropy of the policy on it.",
    "grad_norm": "Norm of its gradient.",
    "logprob_difference_max": "Largest |engine - learner| log-probability in it.",
}


class Exposition(Collector):
    """Looks when it is scraped."""

    def __init__(self, beat: Callable[[], Mapping[str, Any]], onlooker: Onlooker | None) -> None:
        """`beat`: the process's own heartbeat; `onlooker`: where it tells of the whole run too, as the learner does."""
        self._beat, self._onlooker = beat, onlooker

    def collect(self) -> Iterator[Metric]:
        beat = self._beat()
        yield from of_heartbeat(beat)
        if self._onlooker:
            yield from of_run(self._onlooker)


def of_heartbeat(beat: Mapping[str, Any]) -> Iterator[Metric]:
    """Everything that its role has; nothing before the first heartbeat."""
    for known in (*HEARTBEATS.get(beat["role"], ()), *(EVERYBODY if beat["role"] in HEARTBEATS else ())):
        family = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
        value = beat.get(known.key)
        yield family(known.name, known.help, value=0.0 if value is None and known.key == "waits_s" else number(value))
    if beat["role"] == "learner":
        tickets = GaugeMetricFamily("hero_tickets", "Tickets by what became of them.", labels=["lane", "outcome"])
        for lane, prefix in (("train", ""), ("eval", "eval_")):
            for outcome in OUTCOMES:
                if prefix + outcome in beat:
                    tickets.add_metric([lane, outcome], number(beat[prefix + outcome]))
        yield tickets


def of_run(onlooker: Onlooker) -> Iterator[Metric]:
    """Queues, dead letters, the broker's memory, the last step; NaN while the broker cannot tell."""
    stages: dict[Stage, dict[str, Any]] = {stage: {} for stage in GROUPS}
    dead, memory, steps, up = math.nan, math.nan, list[dict[str, Any]](), 1.0
    try:
        stages = {stage: dict(state) for stage, state in onlooker.backlog().items()}
        for stage, age in onlooker.oldest().items():
            stages[stage]["oldest"] = 0.0 if age is None else age
        dead, memory, steps = onlooker.dead_count(), onlooker.used(), onlooker.steps(1)
    except HeroError:
        up = 0.0
    yield GaugeMetricFamily("hero_broker_up", "Whether the broker answered this look.", value=up)
    for key, name, about in (
        ("length", "hero_stream_entries", "Entries of a stream."),
        ("lag", "hero_stream_lag", "Entries that no worker was given yet; NaN where the server cannot tell."),
        ("pending", "hero_stream_pending", "Entries that are being worked on."),
        ("oldest", "hero_stream_oldest_seconds", "Age of the oldest entry that is not done; 0 without one."),
    ):
        family = GaugeMetricFamily(name, about, labels=["stage"])
        for stage, state in stages.items():
            family.add_metric([stage], number(state.get(key)))
        yield family
    yield GaugeMetricFamily("hero_dead_letters", "Messages that were given up.", value=number(dead))
    yield GaugeMetricFamily("hero_broker_memory_ratio", "Used share of the fullest server; 0: no limit.", value=memory)
    yield from of_step(steps)


def of_step(steps: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """The last one; nothing before the first."""
    if not steps:
        return
    last = steps[-1]
    ended = number(last.get("time"))
    yield GaugeMetricFamily("hero_step_timestamp_seconds", "When the last step ended, since 1970.", value=ended)
    for key, about in OF_STEP.items():
        if key in last:
            yield GaugeMetricFamily(f"hero_step_{key}", about, value=number(last[key]))
    verdicts = GaugeMetricFamily("hero_step_completions", "Completions of the last batch by status.", labels=["status"])
    for status in STATUSES:
        verdicts.add_metric([status], number(last.get(f"status_{status}", 0)))
    yield verdicts


def number(value: object) -> float:
    """NaN for what is none."""
    return float(value) if isinstance(value, int | float) else math.nan
