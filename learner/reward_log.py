"""The reward log: every group that the learner trains on or drops, as one JSON object a line.

Long after the streams were trimmed, any reward can be derived again from it. Rotated, bounded in size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.schema import Scored
from learner.json_lines import JsonLines

FILES = 8
SHOWN_CHARS = 2**16
"""Of a group's texts, for whoever looks at a run from far away."""


class RewardLog:
    """Appends to `folder/rewards.jsonl`; older parts are rewards.jsonl.1 to .7."""

    def __init__(self, folder: Path, limit_mb: int) -> None:
        self._lines = JsonLines(folder / "rewards.jsonl", limit_mb * 2**20 // FILES, FILES)

    def write(
        self,
        group: Scored,
        outcome: str,
        step: int,
        advantages: NDArray[np.float64] | None = None,
        gated: bool = False,
    ) -> dict[str, Any]:
        """`outcome` is "trained" or "dropped: reason"; `step` the batch that it went into, or would have; `gated`
        whether it got no advantage since the reward model is not trusted.

        Returns the line. Raises DiskFull.
        """
        line = record(group, outcome, step, advantages, gated)
        self._lines.write(line)
        return line

    def close(self) -> None:
        self._lines.close()


def record(
    group: Scored, outcome: str, step: int, advantages: NDArray[np.float64] | None, gated: bool = False
) -> dict[str, Any]:
    """One line of the log. `rm_score` is null where the model gave none (its status says why), or none is needed."""
    ticket = group.ticket
    scores = [None] * ticket.completions if group.rm_scores is None else [_finite(x) for x in group.rm_scores]
    return {
        "id": ticket.id,
        "attempt": ticket.attempt,
        "outcome": outcome,
        "step": step,
        "question": ticket.question,
        "gold": ticket.gold,
        "meta": ticket.meta,
        "mode": group.mode,
        "reward_model": group.reward_model,
        "sigma_u": group.sigma_u,
        "sigma_bar": group.sigma_bar,
        "sigma_dev": group.sigma_dev,
        "weight": group.weight,
        "gated": gated,
        "completions": [
            {
                "text": completion.text,
                "status": group.statuses[i],
                "extracted": group.extracted[i],
                "rule": group.rules[i] or None,
                "rm_score": scores[i],
                "r_hat": float(group.r_hat[i]),
                "reward": float(group.rewards[i]),
                "advantage": None if advantages is None else float(advantages[i]),
                "tokens": len(completion.ids),
                "finish": completion.finish,
                "versions": completion.versions,
            }
            for i, completion in enumerate(group.rollout.completions)
        ],
    }


def shortened(line: dict[str, Any], chars: int = SHOWN_CHARS) -> dict[str, Any]:
    """The line with the middle of long texts left out, so that it has so many characters of text in all."""
    made = line["completions"]
    limit = chars // (len(made) + 2)
    short = [one | {key: _short(one[key], limit) for key in ("text", "extracted")} for one in made]
    short = [{key: value for key, value in one.items() if key != "versions"} for one in short]
    return line | {
        "completions": short,
        "question": _short(line["question"], limit),
        "gold": _short(line["gold"], limit),
    }


def _short(text: str | None, limit: int) -> str | None:
    """Its answer is at a completion's end."""
    if text is None or len(text) <= limit:
        return text
    return f"{text[: limit // 3]} [...] {text[-(limit - limit // 3) :]}"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
