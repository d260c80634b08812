"""Small valid messages for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.schema import Completion, Rollout, Scored, Ticket


def ticket(run: str = "test", id: int = 0, **changes: Any) -> Ticket:
    values: dict[str, Any] = dict(
        run=run,
        id=id,
        attempt=1,
        question="1 + 1 = ?",
        gold="2",
        meta={},
        prompt_ids=np.arange(5, dtype=np.int32),
        completions=2,
        temperature=1.0,
        max_tokens=16,
        incarnation=1,
        step=0,
    )
    return Ticket(**values | changes)


def rollout(of: Ticket, tokens: int = 4, step: int = 0) -> Rollout:
    completion = Completion(
        text="\\boxed{2}",
        ids=np.arange(tokens, dtype=np.int32),
        logprobs=np.full(tokens, -0.5, np.float32),
        versions=[(tokens, of.incarnation, step)] if tokens else [],
        finish="stop",
        seconds=0.1,
    )
    return Rollout(of, [completion] * of.completions, actor="actor-test", seconds=0.2)


def scored(of: Rollout, sigma_u: float | None = 0.5) -> Scored:
    n = len(of.completions)
    return Scored(
        rollout=of,
        mode="hero",
        statuses=["correct"] * n,
        extracted=["2"] * n,
        rules=["same text"] * n,
        reward_model="rm@1",
        rm_scores=np.zeros(n),
        r_hat=np.linspace(0.9, 1.1, n),
        weight=1.0,
        sigma_u=sigma_u,
        sigma_bar=sigma_u,
        sigma_dev=None if sigma_u is None else 0.0,
        scorer="scorer-test",
        seconds=0.01,
    )
