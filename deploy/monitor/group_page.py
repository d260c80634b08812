"""One group of completions on a page: the prompt, each completion, its verdict, scores and reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from common.untrusted import printable, printable_lines
from deploy.monitor.overview import WIDTH

FIGURES = ("rm_score", "r_hat", "reward", "advantage")


def group_page(group: Mapping[str, Any], place: int, count: int) -> Iterator[RenderableType]:
    """A line of the reward log, `place` of `count` from 1 on. What is not what it should be is shown as it is."""
    figures = "  ".join(f"{name} {_shown(group.get(name))}" for name in ("mode", "weight", "sigma_u", "sigma_bar"))
    yield Text(
        f"group {place} of {count}, the newest first: ticket {_shown(group.get('id'))}, "
        f"{_shown(group.get('outcome'))} at step {_shown(group.get('step'))}\n{figures}"
        + ("\ngated: the reward model is not trusted" if group.get("gated") else "")
    )
    asked = (
        ("question  ", "bold"),
        printable_lines(str(group.get("question"))),
        "\n",
        ("gold  ", "bold"),
        printable_lines(str(group.get("gold"))),
    )
    yield Text.assemble(*asked)
    made = group.get("completions")
    for number, one in enumerate(made if isinstance(made, list) else [], 1):
        if isinstance(one, Mapping):
            yield from _completion(number, one)


def _completion(number: int, one: Mapping[str, Any]) -> Iterator[RenderableType]:
    table = Table(box=None, pad_edge=False, width=WIDTH, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(width=24, no_wrap=True)
    table.add_column(ratio=1)
    figures = "\n".join(f"{name:<10}{_shown(one.get(name)):>10}" for name in FIGURES)
    verdict = f"{number}. {_shown(one.get('status'))}\n{figures}"
    answer = f"-> {_shown(one.get('extracted'))}" + (f"  ({_shown(one['rule'])})" if one.get("rule") else "")
    length = f"{_shown(one.get('tokens'))} tokens, {_shown(one.get('finish'))}"
    table.add_row(
        Text(verdict), Text.assemble(printable_lines(str(one.get("text"))), "\n", (f"{answer}  {length}", "bold"))
    )
    yield table


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else printable(str(value))
