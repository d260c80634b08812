"""`hero score --explain ROW`: one group from its texts to its advantages, as a table that a person can follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from common.settings import RewardSettings
from common.untrusted import printable
from learner.advantage import Rule, advantages

SHOWN_CHARS = 100


def explain(row: Mapping[str, Any], reward: RewardSettings, rule: Rule) -> Group:
    """`row` is what `hero score` writes for a group: texts, statuses, scores, r_hat, weight, rewards."""
    gains = advantages(row["r_hat"], row["weight"], rule, reward.correct_floor)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    table.add_column("answer", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("by rule", overflow="fold")
    for name in ("RM score", "r_hat", "w r_hat", "advantage"):
        table.add_column(name, justify="right", no_wrap=True)
    texts = [f"{row['question']}  Gold answer: {row['gold']}"]
    scores = row["rm_scores"] or [None] * len(row["completions"])
    for i, text in enumerate(row["completions"]):
        texts.append(f"{i + 1:>3}  {'... ' if len(text) > SHOWN_CHARS else ''}{text[-SHOWN_CHARS:]}")
        numbers = (scores[i], row["r_hat"][i], row["rewards"][i], float(gains[i]))
        table.add_row(
            str(i + 1),
            Text(printable((row["extracted"][i] or "-")[:SHOWN_CHARS])),
            row["statuses"][i],
            row["rules"][i] or "-",
            *("-" if value is None else f"{value:+.3f}" for value in numbers),
            style="green" if row["statuses"][i] == "correct" else "",
        )
    shown = [Text(printable(text.replace("\n", " "))) for text in texts]
    return Group(*shown, table, *(Text(line) for line in _steps(row, reward, rule)))


def _steps(row: Mapping[str, Any], reward: RewardSettings, rule: Rule) -> list[str]:
    """The formulas with the numbers of this group (arXiv:2510.07242, Eq. 3 to 5)."""
    if reward.mode != "hero":
        told = {
            "verifier": "1 or 0",
            "rm": "the RM score",
            "blend": f"{reward.blend_weight} * verdict + rest * RM score",
        }
        return [f"r_hat (mode {reward.mode}): {told[reward.mode]}; w = 1", _rule(rule, reward)]
    found = ["r_hat (Eq. 3): z = (score - min) / (max - min) among those of the same verdict"]
    a, b = reward.alpha, reward.beta
    bands = {
        "negatives": f"wrong: -{a:g} + {2 * a:g} z, in [-{a:g}, {a:g}]",
        "positives": f"right: {1 - b:g} + {2 * b:g} z, in [{1 - b:g}, {1 + b:g}]",
    }
    plain = {"negatives": "wrong: 0", "positives": "right: 1"}
    found += [f"  {bands[s] if reward.dense in (s, 'both') else plain[s]}" for s in ("negatives", "positives")]
    lone = "its floor" if reward.lone == "floor" else "its middle"
    found.append(f"  one alone in its band, or equal scores: {lone} (reward.lone)")
    if reward.weighting == "off":
        return [*found, "w = 1 (reward.weighting is off)", _rule(rule, reward)]
    low, span, k = reward.w_min, reward.w_max - reward.w_min, reward.k
    at = f"at sigma_u {row['sigma_u']:.3f}, sigma_bar {row['sigma_bar']:.3f}"
    found.append(f"w (Eq. 4) = {low:g} + {span:g} / (1 + exp(-{k:g} (sigma_u - sigma_bar))) = {row['weight']:.3f} {at}")
    return [*found, _rule(rule, reward)]


def _rule(rule: Rule, reward: RewardSettings) -> str:
    told = {
        "centered": "w * r_hat - its mean",
        "normalized_then_weighted": "w * (r_hat - mean) / (std + 1e-6)",
        "normalized": "(w * r_hat - mean) / (std + 1e-6): w cancels",
        "corpo": f"w * r_hat - max(its mean, w * {reward.correct_floor:g})",
    }
    return f"advantage ({rule}) = {told[rule]}"
