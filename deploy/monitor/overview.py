"""A snapshot as tables of at most 80 columns, which say the same without colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from common.untrusted import figure, printable
from deploy.monitor.snapshot import BOOKS, Process, Snapshot
from deploy.monitor.spark import BARS, sparkline

WIDTH = 79  # of 80: the live view has a scrollbar
SPARK_WIDTH = 30
RECENT = 20
"""Steps that a mean is over."""
SILENT_S = 10.0
"""Who says nothing for so long is said to be silent: heartbeats come every second."""
CURVES = {
    "reward_mean": "reward",
    "accuracy": "verifier accuracy",
    "r_hat_mean": "r_hat (bands)",
    "rm_score_mean": "RM score",
    "rm_auroc_mixed_groups": "RM AUROC, mixed groups",
    "weight_mean": "HERO weight",
    "uniform_group_share": "uniform groups",
    "staleness_mean": "staleness",
    "completion_tokens_mean": "completion tokens",
    "truncated_share": "cut off",
    "entropy": "entropy",
    "grad_norm": "gradient norm",
}
RATES = {"actor": "tok/s", "scorer": "groups/s", "learner": "steps/s"}


def overview(seen: Snapshot, bars: str = BARS) -> Iterator[RenderableType]:
    """Everything, one part after the other."""
    yield head(seen)
    yield streams(seen)
    yield processes(seen.processes)
    if waits := waiting(seen.processes):
        yield waits
    if seen.steps:
        yield curves(seen.steps, bars)
        yield statuses(seen.steps)
    else:
        yield Text("no step yet")


def page(*parts: RenderableType) -> Group:
    """Parts with an empty line between any two."""
    return Group(*(line for part in parts for line in (part, Text())))


def head(seen: Snapshot) -> Text:
    """Where the run is, its pace, its books."""
    lines = [f"run {seen.run}" + ("  OVER" if seen.over else ""), "  ".join(_progress(seen))]
    if seen.books is None:
        lines.append("no learner has been heard of")
    else:
        parts = " + ".join(f"{seen.books.get(name, 0):,} {name.replace('_', ' ')}" for name in BOOKS)
        lines.append(f"books: {seen.books.get('issued', 0):,} issued = {parts}")
        if not seen.balanced:
            lines.append("THE BOOKS DO NOT BALANCE")
    lines.append(f"dead letters: {seen.dead_letters}" + ("  (hero queue list)" if seen.dead_letters else ""))
    releases = Counter(str(one.state.get("code", "?"))[:20] for one in seen.processes if one.state)
    if len(releases) > 1:
        lines.append("releases: " + ", ".join(f"{code} ({count})" for code, count in sorted(releases.items())))
    lines.append(f"broker: {seen.broker}" + (f"  memory {seen.memory_share:.0%}" if seen.memory_share else ""))
    return _text(*lines)


def streams(seen: Snapshot) -> Table:
    """Training's; evaluation's while it has anything."""
    table = _table("stream", ">entries", ">lag", ">pending", ">oldest", ">slowest shadow")
    for one in seen.streams:
        if one.stage.startswith("eval:") and not one.length:
            continue
        behind = max((s["lag"] for s in seen.shadows if s["stage"] == one.stage and s["lag"] is not None), default=None)
        lag = "?" if one.lag is None else f"{one.lag:,}"
        shadow = "" if behind is None else f"{behind:,} behind"
        _row(table, one.stage, f"{one.length:,}", lag, f"{one.pending:,}", seconds(one.oldest_s), shadow)
    return table


def processes(found: Sequence[Process]) -> Table:
    """Who works, on which version of the policy, how fast; each with its host."""
    table = _table("process", "host", ">policy", ">holds", ">oldest", ">heard", ">rate")
    for one in found:
        heard = "never" if one.heard_s is None else seconds(one.heard_s)
        if one.heard_s is not None and one.heard_s > SILENT_S:
            heard = f"SILENT {heard}"
        rate = "" if one.rate is None else f"{one.rate:,.1f} {RATES.get(one.role, '')}"
        version = "" if one.version is None else str(one.version)
        name = f"{one.role} {one.name[-6:]}"
        oldest = seconds(one.oldest_s) if one.pending else ""
        _row(table, name, one.host[:18], version, str(one.pending), oldest, heard, rate)
    return table


def waiting(found: Sequence[Process]) -> Text | None:
    """What anybody waits for, since when, and what would end it."""
    lines = [
        f"{one.role} {one.name[-6:]} waits {seconds((one.state.get('waits_s') or 0) + (one.heard_s or 0))} "
        f"for {one.state['waits_for']}" + (f": until {until}" if (until := one.state.get("waits_until")) else "")
        for one in found
        if one.state.get("waits_for")
    ]
    return _text(*lines) if lines else None


def curves(steps: Sequence[dict[str, Any]], bars: str = BARS) -> Table:
    """Rewards by part and what belongs to them: now, the mean of RECENT steps, their course."""
    table = _table("of a step", ">now", f">mean of {RECENT}", f"steps {steps[0]['step']} to {steps[-1]['step']}")
    for name, title in CURVES.items():
        values = [figure(step.get(name)) for step in steps]
        recent = [value for value in values[-RECENT:] if value is not None]
        if recent:
            now = "" if values[-1] is None else _short(values[-1])
            _row(table, title, now, _short(sum(recent) / len(recent)), sparkline(values, SPARK_WIDTH, bars))
    return table


def statuses(steps: Sequence[dict[str, Any]]) -> Text:
    """What became of the completions of RECENT steps."""
    counts: dict[str, float] = {}
    for step in steps[-RECENT:]:
        for name in step:
            if name.startswith("status_") and (value := figure(step.get(name))) is not None:
                counts[name[7:]] = counts.get(name[7:], 0.0) + value
    total = sum(counts.values()) or 1.0
    shares = sorted(counts.items(), key=lambda one: -one[1])
    return _text("verdicts: " + "  ".join(f"{name} {value / total:.1%}" for name, value in shares))


def seconds(value: float | None) -> str:
    """0.4 s, 12 s, 3:20, 2h05."""
    if value is None:
        return ""
    if value < 100:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes = int(value) // 60
    return f"{minutes}:{int(value) % 60:02d}" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}"


def _progress(seen: Snapshot) -> Iterator[str]:
    learner = next((one for one in seen.processes if one.role == "learner"), None)
    step, total = (learner.state.get(name) if learner else None for name in ("step", "steps"))
    yield f"step {'?' if step is None else step}" + (f" of {total}" if total else "")
    yield "no policy yet" if seen.policy is None else f"policy {seen.policy[0]}-{seen.policy[1]}"
    recent = seen.steps[-RECENT:]
    times = [figure(one.get("time")) for one in recent]
    if len(recent) > 1 and times[0] and times[-1] and times[-1] > times[0]:
        each = (times[-1] - times[0]) / (len(recent) - 1)
        tokens = sum(figure(one.get("sampled_tokens")) or 0.0 for one in recent[1:])
        yield f"{each:.2f} s a step"
        yield f"{tokens / (times[-1] - times[0]):,.0f} tok/s"
        if isinstance(step, int) and isinstance(total, int) and total > step:
            yield f"{seconds((total - step) * each)} left"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"


def _table(*columns: str) -> Table:
    """Columns whose name begins with ">" are numbers."""
    table = Table(box=None, pad_edge=False, width=WIDTH, header_style="bold", padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name[0] == ">" else "left", no_wrap=True)
    return table


def _row(table: Table, *cells: str) -> None:
    """As text: neither markup nor what would steer a terminal."""
    table.add_row(*(Text(printable(cell), justify=c.justify) for cell, c in zip(cells, table.columns, strict=True)))


def _text(*lines: str) -> Text:
    return Text("\n".join(printable(line) for line in lines))
