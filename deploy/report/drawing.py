"""Plots as SVG, by matplotlib: readable on a light and on a dark page, with and without colours."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from deploy.report.curves import Curve, Plot
from deploy.report.svg import inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""Stands for the page's text colour while matplotlib draws."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", INK, "#b8a800")
"""Okabe and Ito's, told apart by all kinds of eyes; its black is the text's colour, its yellow darker."""
DASHES = ((), (4, 2), (1, 1.5), (5, 1.5, 1, 1.5))
"""Which begin anew with each round of the palette."""
MOST_CURVES = len(PALETTE) * len(DASHES)
USUAL_TIMES = 2.5
"""A step that took longer than the slowest of most, times this, is cut off: a first one would hide all others."""
SIZE_INCHES = (4.6, 2.5)
RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hero",  # the same plot is the same text
    "text.parse_math": False,
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}


def dash_of(color: int) -> int:
    return color // len(PALETTE) % len(DASHES)


def svg(plot: Plot, prefix: str) -> Markup:
    """Without legend and title: the page has them as text."""
    import matplotlib
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        (_areas if plot.stacked else _lines)(axes, plot)
        axes.grid(visible=True)
        axes.margins(x=0.01)
        axes.set_xlabel(plot.xlabel)
        if plot.level is not None:
            axes.axhline(plot.level, color=INK, linewidth=0.6, linestyle="--")
        figure.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format")))
    names = {f"curve{place}": told(one) for place, one in enumerate(plot.curves)}
    return inline(out.getvalue(), prefix, INK, names, "; ".join((plot.title, *names.values())))


def told(curve: Curve) -> str:
    """A curve in words."""
    first, last = curve.ends
    low, high = curve.reach
    return f"{curve.label}: first {first:.4g}, last {last:.4g}, between {low:.4g} and {high:.4g}"


def _lines(axes: Axes, plot: Plot) -> None:
    for place, one in enumerate(plot.curves):
        color, dash = PALETTE[one.color % len(PALETTE)], DASHES[dash_of(one.color)]
        thick = one.y if one.smooth is None else one.smooth
        if one.smooth is not None:
            axes.plot(one.x, one.y, color=color, linewidth=0.7, alpha=0.3)
        if one.low is not None and one.high is not None:
            reach = [np.maximum(one.y - one.low, 0), np.maximum(one.high - one.y, 0)]
            axes.errorbar(one.x, one.y, reach, color=color, fmt="none", capsize=2)
        few = "o" if len(one.x) <= 30 else None
        [line] = axes.plot(one.x, thick, color=color, linewidth=1.5, marker=few, markersize=3, gid=f"curve{place}")
        if dash:
            line.set_dashes(dash)


def _areas(axes: Axes, plot: Plot) -> None:
    """From the bottom up in the order of the legend; every curve has the same steps."""
    values = np.array([one.y if one.smooth is None else one.smooth for one in plot.curves])
    colors = [PALETTE[one.color % len(PALETTE)] for one in plot.curves]
    for place, area in enumerate(axes.stackplot(plot.curves[0].x, values, colors=colors, alpha=0.8)):
        area.set_gid(f"curve{place}")
        area.set_linewidth(0)
    heights = values.sum(axis=0)
    usual = USUAL_TIMES * float(np.quantile(heights, 0.95))
    axes.set_ylim(0, 1 if np.allclose(heights, 1) else min(usual, 1.05 * heights.max()))
