"""`hero score --explain ROW`: one group from its texts to its advantages, as a table that a person can follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from common.errors import ConfigError
from common.settings import LearnerSettings, RewardSettings
from common.untrusted import printable
from deploy.recorded import graded
from learner.advantage import batch_advantages

SHOWN_CHARS = 100


def explain(row: Mapping[str, Any], reward: RewardSettings, learner: LearnerSettings) -> Group:
    """`row` is what `hero score` writes for a group: texts, statuses, scores, r_hat, weight, rewards.

    Raises ConfigError where the advantage rule needs scores that the row has not.
    """
    try:
        [gains] = batch_advantages([graded(row)], learner, reward.correct_floor)
    except ValueError as error:
        raise ConfigError(f"this row cannot be explained so: {error}") from error
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
    return Group(*shown, table, *(Text(line) for line in _steps(row, reward, learner)))


def _steps(row: Mapping[str, Any], reward: RewardSettings, learner: LearnerSettings) -> list[str]:
    """The formulas with the numbers of this group (arXiv:2510.07242, Eq. 3 to 5)."""
    if reward.mode != "hero":
        told = {
            "verifier": "1 or 0",
            "rm": "the RM score",
            "blend": f"{reward.blend_weight} * verdict + rest * RM score",
        }
        return [f"r_hat (mode {reward.mode}): {told[reward.mode]}; w = 1", *_rule(row, reward, learner)]
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
    return [*found, _weight(row, reward), *_rule(row, reward, learner)]


def _weight(row: Mapping[str, Any], reward: RewardSettings) -> str:
    if reward.weighting == "off":
        return "w = 1 (reward.weighting is off)"
    low, span = reward.w_min, reward.w_max - reward.w_min
    at = f"= {row['weight']:.3f} at sigma_u {row['sigma_u']:.3f}, sigma_bar {row['sigma_bar']:.3f}"
    if reward.weighting == "paper":
        return f"w (Eq. 4) = {low:g} + {span:g} / (1 + exp(-{reward.k:g} (sigma_u - sigma_bar))) {at}"
    formula = f"{low:g} + {span:g} / (1 + exp(-{reward.k_z:g} (sigma_u - sigma_bar) / sigma_dev))"
    return f"w (scale-free) = {formula} {at}, sigma_dev {row['sigma_dev']:.3f}"


def _rule(row: Mapping[str, Any], reward: RewardSettings, learner: LearnerSettings) -> list[str]:
    rule, v, m = learner.advantage, learner.verifier_weight, learner.rm_weight
    alone = "of a batch that is this group alone; in a run, of all groups of its step"
    whitened = f"n(x) = (x - mean) / (std + 1e-6), outside over the batch; r_hat and w have no part; {alone}"
    told = {
        "centered": "w * r_hat - its mean",
        "normalized_then_weighted": "w * (r_hat - mean) / (std + 1e-6)",
        "normalized": "(w * r_hat - mean) / (std + 1e-6): w cancels",
        "corpo": f"w * r_hat - max(its mean, w * {reward.correct_floor:g})",
        "gdpo": f"n({v:g} n(verdict) + {m:g} n(RM score)); {whitened}",
        "dara": f"n({v:g} a n(verdict) + {m:g} b n(RM score)); a, b = min({learner.density_cap:g}, sqrt(pi_ref / pi)), "
        f"pi the share of groups in which a reward differs, pi_ref the larger one; {whitened}",
        "papo": f"n(verdict) + {learner.process_weight:g} n(RM score among the right ones, else 0); "
        "n(x) = (x - mean) / (std + 1e-6); r_hat and w have no part",
    }
    found = [f"advantage ({rule}) = {told[rule]}"]
    if learner.min_rm_auroc and graded(row).uniform:
        found.append(f"  or 0, while the running AUROC is below {learner.min_rm_auroc:g}: no verdict ranks this group")
    return found
