"""From runs to the plots of the page: panels where one run has something to show, several runs in one plot. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.untrusted import printable
from deploy.report.curves import Curve, Plot, curve
from deploy.report.derived import Series, series
from deploy.report.panels import COLORS, ELSEWHERE, SECTIONS, STATUS, Panel
from deploy.report.recording import Recording
from deploy.report.steps import Floats, Steps

MOST_FURTHER = 40
FURTHER = "Further numbers"
HELD_OUT = "Held-out accuracy"


Still = list[list[str]]
"""Rows of a table: name, value in each run."""


@dataclass(frozen=True)
class Section:
    title: str
    plots: Sequence[Plot]


def sections(runs: Sequence[Recording]) -> tuple[list[Section], Still]:
    """The plots, and what stood still instead."""
    known = [series(run.steps, run.groups.rewards()) for run in runs]
    names = [run.name for run in runs]
    still: Still = []
    found = [Section(HELD_OUT, [plot] if (plot := _rounds(runs)) else [])]
    for title, panels in SECTIONS.items():
        filled = [_with_statuses(panel, known) if not panel.names else panel for panel in panels]
        found.append(Section(title, [plot for panel in filled for plot in _plots(panel, names, known, still)]))
    if plot := _scaling(runs):
        found[-1] = replace(found[-1], plots=[*found[-1].plots, plot])
    found.append(Section(FURTHER, [plot for panel in _further(known) for plot in _plots(panel, names, known, still)]))
    return [section for section in found if section.plots], still


def _plots(panel: Panel, names: Sequence[str], known: Sequence[Series], still: Still) -> list[Plot]:
    """One plot of one run; of several runs one for each number, in which a run is a colour."""
    if len(known) == 1:
        colors = _colors(list(panel.names.values()))
        made = [_curve(label, colors[label], known[0].get(name), len(panel.names), panel.smooth)
                for name, label in panel.names.items()]  # fmt: skip
        curves = _moving([one for one in made if one], panel, still)
        whole = panel.stacked and len({len(one.x) for one in curves}) == 1
        title = panel.title if len(curves) != 1 or len(panel.names) == 1 else f"{panel.title}: {curves[0].label}"
        return [Plot(title, curves, whole, panel.level)] if curves else []
    found = []
    for name, label in panel.names.items():
        title = panel.title if len(panel.names) == 1 else f"{panel.title}: {label}"
        of_runs = [_curve(run, color, own.get(name), len(known), panel.smooth)
                   for color, (run, own) in enumerate(zip(names, known, strict=True))]  # fmt: skip
        curves = [one for one in of_runs if one]
        if curves and all(one.constant for one in curves):
            still.append([title, *(f"{one.reach[0]:g}" if one else "" for one in of_runs)])
        elif curves:
            found.append(Plot(title, curves, level=panel.level))
    return found


def _colors(labels: Sequence[str]) -> dict[str, int]:
    """Right and wrong have theirs wherever they are, the others what is left."""
    fixed = {label: COLORS[label] for label in labels if label in COLORS}
    free = (color for color in itertools.count() if color not in fixed.values())
    return {label: fixed[label] if label in fixed else next(free) for label in labels}


def _moving(curves: list[Curve], panel: Panel, still: Still) -> list[Curve]:
    """Without those that stood still, which are said instead; of parts of a whole, without those that are 0."""
    if panel.stacked:
        return [one for one in curves if one.reach != (0.0, 0.0)]
    for one in curves:
        if one.constant:
            name = panel.title if len(panel.names) == 1 else f"{panel.title}: {one.label}"
            still.append([name, f"{one.reach[0]:g}"])
    return [one for one in curves if not one.constant]


def _curve(label: str, color: int, values: tuple[Floats, Floats] | None, of: int, smooth: bool) -> Curve | None:
    return None if values is None else curve(label, color, *values, of, smooth)


def _with_statuses(panel: Panel, known: Sequence[Series]) -> Panel:
    """Correct and wrong first, the others as they come."""
    found = dict.fromkeys(name for own in known for name in own if name.startswith(STATUS))
    first = [name for name in (f"{STATUS}correct", f"{STATUS}wrong") if name in found]
    ordered = dict.fromkeys([*first, *found])
    labels = {name: printable(name.removeprefix(STATUS)).replace("_", " ") for name in ordered}
    return replace(panel, names=labels)


def _further(known: Sequence[Series]) -> list[Panel]:
    """Every number of the log that no panel has."""
    drawn = {name for panels in SECTIONS.values() for panel in panels for name in panel.names}
    left = dict.fromkeys(name for own in known for name in own if name not in drawn and not name.startswith(ELSEWHERE))
    labels = {name: printable(name).replace("_", " ") for name in list(left)[:MOST_FURTHER]}
    return [Panel(label, {name: label}) for name, label in labels.items()]


def _rounds(runs: Sequence[Recording]) -> Plot | None:
    """The evaluation beside training, with its intervals; a run that has none is not in it."""
    curves = []
    for color, run in enumerate(runs):
        if len(run.rounds) and (
            one := curve(run.name, color, run.rounds.steps, run.rounds.of("accuracy"), smooth=False)
        ):
            ends = {end: run.rounds.of(end) for end in ("low", "high")}
            whole = len(one.x) == len(run.rounds) and all(np.isfinite(values).all() for values in ends.values())
            curves.append(replace(one, low=ends["low"], high=ends["high"]) if whole else one)
    return Plot(f"{HELD_OUT} beside training, 95 % intervals", curves) if curves else None


def _scaling(runs: Sequence[Recording]) -> Plot | None:
    """Scorers over the minutes of runs in which they came and went."""
    curves = []
    for color, run in enumerate(runs):
        log: Steps = run.scaling
        if len(log):
            minutes = (log.steps - log.steps[0]) / 60
            curves += [one for one in (curve(run.name, color, minutes, log.of("scorers"), smooth=False),) if one]
    return Plot("Scorers", curves, xlabel="minutes") if curves else None
