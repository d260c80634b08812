"""Findings as lines of at most 80 columns, which say the same without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from common.untrusted import printable
from deploy.doctor.finding import Finding, Level, counts

WIDTH = 80
LEVEL_WIDTH, CHECK_WIDTH = 8, 19
STYLES: dict[Level, str] = {"ok": "green", "skipped": "dim", "warning": "yellow", "error": "bold red"}


def row(finding: Finding) -> RenderableType:
    """One finding: level, check, what was found, and below it what to do."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.width = WIDTH
    table.add_column(width=LEVEL_WIDTH)
    table.add_column(width=CHECK_WIDTH, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    what = printable(finding.found) + (f"\n-> {printable(finding.remedy)}" if finding.remedy else "")
    table.add_row(Text(finding.level, style=STYLES[finding.level]), Text(finding.check), Text(what))
    return table


def closing(findings: Sequence[Finding]) -> str:
    """How many of each level."""
    found = counts(findings)
    shown = ", ".join(f"{number} {_plural(level, number)}" for level, number in found.items())
    return f"{len(findings)} findings: {shown}"


def _plural(level: Level, number: int) -> str:
    return f"{level}s" if level in ("warning", "error") and number != 1 else level
