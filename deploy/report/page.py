"""Runs as the page: plots and tables, and as many groups as a page holds that still opens quickly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from deploy.report import settings_rows, tables
from deploy.report.curves import ENDS, WINDOW, Plot
from deploy.report.document import document
from deploy.report.drawing import DASHES, INK, PALETTE, dash_of, svg
from deploy.report.gathering import Section, sections
from deploy.report.group_rows import TEXT_CHARS, row
from deploy.report.recording import Recording

TEMPLATE = Path(__file__).with_name("page.html.jinja")
SCRIPTS = (TEMPLATE.with_name("groups.js"), TEMPLATE.with_name("reload.js"))
GROUPS_BYTES = 6 * 2**20
"""Of all groups in the page."""


def page(runs: Sequence[Recording], refresh_s: float = 0.0) -> str:
    """HTML; with `refresh_s` it reloads itself so often."""
    names = [run.name for run in runs] if len(runs) > 1 else [runs[0].id]
    found, still = sections(runs)
    groups, shown = _groups(runs)
    return document(
        TEMPLATE,
        SCRIPTS,
        title=f"Run {names[0]}" if len(names) == 1 else f"{len(names)} runs: {', '.join(names[:6])}",
        names=names,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        refresh_s=f"{refresh_s:g}" if refresh_s else "",
        finished=all(run.finished for run in runs),
        facts=tables.facts(runs),
        outcomes=tables.outcomes(runs),
        faults=[f"{name}: {fault}" for name, run in zip(names, runs, strict=True) for fault in run.faults()],
        window=WINDOW,
        ends=ENDS,
        run_keys=[_key(name, color) for color, name in enumerate(names)],
        sections=list(_drawn(found)),
        still=still,
        differing=settings_rows.differing(runs),
        changed=settings_rows.changed(runs),
        groups_note=[_note(*of_run) for of_run in zip(names, runs, shown, strict=True)],
        text_chars=TEXT_CHARS,
        groups=groups,
    )


def _drawn(found: Sequence[Section]) -> Iterator[dict[str, Any]]:
    for number, section in enumerate(found):
        plots = [
            {
                "title": plot.title,
                "svg": svg(plot, f"p{number}-{place}-"),
                "legend": [_key(one.label, one.color) for one in plot.curves],
            }
            for place, plot in enumerate(section.plots)
        ]
        yield {"title": section.title, "plots": plots, "figures": list(_figures(section.plots))}


def _figures(plots: Sequence[Plot]) -> Iterator[list[str]]:
    for plot in plots:
        for one in plot.curves:
            name = plot.title if plot.title == one.label else f"{plot.title}: {one.label}"
            yield [name, *(f"{value:.4g}" for value in (*one.ends, *one.reach))]


def _key(label: str, color: int) -> dict[str, str]:
    """Of a legend."""
    ink = PALETTE[color % len(PALETTE)]
    dash = " ".join(str(3 * part) for part in DASHES[dash_of(color)])
    return {"label": label, "color": "currentColor" if ink == INK else ink, "dash": dash}


def _groups(runs: Sequence[Recording]) -> tuple[Markup, list[int]]:
    """JSON that may stand in a page, and how many groups of each run are in it; each run has as much room."""
    texts: list[str] = []
    shown = []
    for place, run in enumerate(runs):
        room, own = GROUPS_BYTES // len(runs), []
        for group in run.groups.chosen():
            text = str(htmlsafe_json_dumps({"run": place, **row(group)}, separators=(",", ":")))
            room -= len(text)
            if room < 0:
                break
            own.append((-group["number"], text))
        texts += [text for _, text in sorted(own)]
        shown.append(len(own))
    return Markup("[" + ",\n".join(texts) + "]"), shown  # noqa: S704 - each is escaped


def _note(name: str, run: Recording, shown: int) -> str:
    kept = run.groups
    if not kept.count:
        return f"{name}: the reward log has no group yet."
    what = ", ".join(f"{count:,} {outcome}" for outcome, count in kept.outcomes.most_common())
    if shown == kept.count:
        return f"{name}: all {shown:,} groups of the reward log ({what})."
    return (
        f"{name}: {shown:,} of {kept.count:,} groups of the reward log ({what}): the latest, some of every rare "
        f"status and outcome, and a sample; {kept.count - shown:,} are left out."
    )
