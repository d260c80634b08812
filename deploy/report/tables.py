"""What a run was and what came out of it, as rows of tables with a column for each run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from common.untrusted import figure, printable
from deploy.monitor.overview import seconds
from deploy.monitor.snapshot import BOOKS
from deploy.report.curves import ENDS
from deploy.report.recording import Recording
from deploy.report.settings_rows import Rows, written

ARROW = " \N{RIGHTWARDS ARROW} "


def facts(runs: Sequence[Recording]) -> Rows:
    """Which run it is, with what it began, when it ran."""
    settings = {
        "reward mode": "reward.mode",
        "policy": "model.policy",
        "reward model": "reward_model.model",
        "prompts": "data.train",
        "seed": "run.seed",
    }
    return _rows(
        runs,
        {
            "run": lambda run: run.id,
            "folder": lambda run: printable(str(run.folder)),
            "state": lambda run: run.state,
            "trained": _when,
            **{label: _setting(key) for label, key in settings.items()},
        },
    )


def outcomes(runs: Sequence[Recording]) -> Rows:
    """Accuracies with their 95 % intervals, rewards, the books, speed."""
    figures = list(dict.fromkeys(name for run in runs for name in _held_out(run)))
    return _rows(
        runs,
        {
            **{f"held-out {name}, %": _from_held_out(name) for name in figures},
            "held-out accuracy beside training, %": _beside_training,
            f"accuracy of training samples, %, first and last {ENDS} steps": _ends("accuracy", 100, 1),
            f"reward, first and last {ENDS} steps": _ends("reward_mean", 1, 3),
            f"AUROC of the reward model in mixed groups, first and last {ENDS} steps": _ends(
                "rm_auroc_mixed_groups", 1, 3
            ),
            f"tokens of a completion, first and last {ENDS} steps": _ends("completion_tokens_mean", 1, 1),
            "tickets": _books,
            "dropped because": lambda run: _listed(run, "drops."),
            "staleness in steps": _staleness,
            "seconds a step (median)": _seconds_a_step,
            "sampled tokens a second": _tokens_a_second,
            "engine against learner": _difference,
            "seconds": lambda run: ", ".join(
                f"{printable(name).replace('_', ' ')} {value:,.0f}"
                for name, value in _figures(run.summary.get("seconds")).items()
            ),
        },
    )


def percent(found: Mapping[str, Any]) -> str:
    """An accuracy with its interval."""
    value, low, high = (figure(found.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return ""
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{interval}"


def _rows(runs: Sequence[Recording], cells: Mapping[str, Callable[[Recording], str]]) -> Rows:
    """Those that any run has."""
    found = [[label, *(cell(run) for run in runs)] for label, cell in cells.items()]
    return [row for row in found if any(row[1:])]


def _setting(key: str) -> Callable[[Recording], str]:
    def cell(run: Recording) -> str:
        value = run.settings.get(key)
        return "" if value is None else written(value)

    return cell


def _when(run: Recording) -> str:
    """From the first step to the last, as far as the metrics log has them."""
    times = run.steps.of("time")
    times = times[np.isfinite(times)]
    if not len(times):
        return ""
    first, last = (datetime.fromtimestamp(float(at), UTC) for at in (times[0], times[-1]))
    day = "" if first.date() == last.date() else f"{last:%Y-%m-%d} "
    return f"{first:%Y-%m-%d %H:%M} to {day}{last:%H:%M} UTC, {seconds(times[-1] - times[0])}"


def _held_out(run: Recording) -> dict[str, str]:
    """Figure to its value before and after training with the difference; of each set, then of their mean."""
    models = _inner(run.evaluation, "models")
    before, after = (_inner(models, moment) for moment in ("before", "after"))
    sets = list(dict.fromkeys([*_inner(before, "sets"), *_inner(after, "sets")]))
    found = {}
    for name in [*sets, None]:
        if name is None and len(sets) < 2:
            continue
        place = ("sets", name, "accuracy") if name else ("mean",)
        old, new = (_inner(model, *place) for model in (before, after))
        for kind in dict.fromkeys([*old, *new]):
            gain = _gain(run.evaluation, kind, name)
            cells = [text for one in (old, new) if (text := percent(_inner(one, kind)))]
            label = f"{kind}, {name or 'mean of the sets'}" if len(sets) > 1 else kind
            found[printable(str(label))] = ARROW.join(cells) + gain
    return found


def _gain(evaluation: Mapping[str, Any], kind: str, name: str | None) -> str:
    lines = evaluation.get("comparisons")
    for line in lines if isinstance(lines, list) else []:
        if isinstance(line, Mapping) and line.get("models") == ["before", "after"]:
            ends = [figure(line.get(end)) for end in ("difference", "low", "high")]
            if line.get("figure") == kind and (line.get("set") or None) == name and None not in ends:
                points, low, high = (100 * end for end in ends if end is not None)
                return f" ({points:+.1f} points [{low:+.1f}, {high:+.1f}])"
    return ""


def _from_held_out(name: str) -> Callable[[Recording], str]:
    return lambda run: _held_out(run).get(name, "")


def _beside_training(run: Recording) -> str:
    if not len(run.rounds):
        return ""
    steps, columns = run.rounds.steps, {end: run.rounds.of(end) for end in ("accuracy", "low", "high")}
    ends = [
        f"{percent({'value': columns['accuracy'][at], 'low': columns['low'][at], 'high': columns['high'][at]})}"
        f" at step {steps[at]:.0f}"
        for at in (0, -1)
    ]
    return ARROW.join(dict.fromkeys(ends)) + f", {len(run.rounds)} rounds"


def _ends(name: str, times: float, digits: int) -> Callable[[Recording], str]:
    def cell(run: Recording) -> str:
        values = run.steps.of(name)
        values = values[np.isfinite(values)]
        if not len(values):
            return ""
        return f"{times * values[:ENDS].mean():.{digits}f}{ARROW}{times * values[-ENDS:].mean():.{digits}f}"

    return cell


def _books(run: Recording) -> str:
    counts = {name: run.steps.last(f"tickets.{name}") for name in ("issued", *BOOKS)}
    issued = counts.pop("issued")
    if issued is None:
        return ""
    parts = " + ".join(f"{count or 0:,.0f} {name.replace('_', ' ')}" for name, count in counts.items())
    balanced = sum(count or 0 for count in counts.values()) == issued
    return f"{issued:,.0f} issued = {parts}" + ("" if balanced else ": THE BOOKS DO NOT BALANCE")


def _listed(run: Recording, prefix: str) -> str:
    found = {name.removeprefix(prefix): run.steps.last(name) for name in run.steps.names if name.startswith(prefix)}
    return ", ".join(f"{printable(name).replace('_', ' ')} {count:,.0f}" for name, count in found.items() if count)


def _staleness(run: Recording) -> str:
    mean, most = (run.steps.of(f"staleness_{name}") for name in ("mean", "max"))
    return f"mean {np.nanmean(mean):.2f}, at most {np.nanmax(most):.0f}" if np.isfinite(mean).any() else ""


def _seconds_a_step(run: Recording) -> str:
    passed = np.diff(run.steps.of("time"))
    passed = passed[passed > 0]
    return f"{np.median(passed):.2f}" if len(passed) else ""


def _tokens_a_second(run: Recording) -> str:
    times = run.steps.of("time")
    if len(times) < 2 or not times[-1] > times[0]:
        return ""
    return f"{np.nansum(run.steps.of('sampled_tokens')[1:]) / (times[-1] - times[0]):,.0f}"


def _difference(run: Recording) -> str:
    found = figure(run.summary.get("max_logprob_difference"))
    return "" if found is None else f"log-probabilities differ by at most {found:.2g}"


def _figures(found: object) -> dict[str, float]:
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {str(name): value for name, one in pairs if (value := figure(one)) is not None}


def _inner(found: object, *keys: str) -> Mapping[str, Any]:
    """What lies in maps in maps; empty where it does not."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
