"""Small valid messages for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.schema import Completion, Policy, Rollout, Scored, Ticket
from common.weights.folder import Draft, of
from common.weights.manifest import Layout, Manifest, checksum
from deploy.evaluation.rows import Asked, Result, write


def ticket(run: str = "test", id: int = 0, **changes: Any) -> Ticket:
    values: dict[str, Any] = dict(
        run=run,
        lane="train",
        id=id,
        attempt=1,
        question="1 + 1 = ?",
        gold="2",
        meta={},
        prompt_ids=np.arange(5, dtype=np.int32),
        completions=2,
        temperature=1.0,
        top_p=1.0,
        max_tokens=16,
        incarnation=1,
        step=0,
    )
    return Ticket(**values | changes)


def policy(incarnation: int = 1, step: int = 0, folder: str | Path = "/weights", **changes: Any) -> Policy:
    """Of one tensor that nobody loads."""
    layout = Layout.of([("w", "F32", (2,))])
    manifest = Manifest(layout, (checksum(np.zeros(8, np.uint8)),))
    return Policy(**dict(incarnation=incarnation, step=step, manifest=manifest, folder=str(folder)) | changes)


def published(root: Path, incarnation: int = 1, step: int = 0, value: float = 0.0, **changes: Any) -> Policy:
    """The same one in a folder."""
    tensor = np.full(2, value, np.float32).view(np.uint8)
    draft = Draft(of(root, incarnation, step))
    manifest = draft.write(Layout.of([("w", "F32", (2,))]), [tensor])
    return policy(incarnation, step, draft.publish(), manifest=manifest, **changes)


def published_model(root: Path, model: Path, incarnation: int = 1, step: int = 0, **changes: Any) -> Policy:
    """The weights of a model folder as a version in `root`."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(model / "model.safetensors")
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    layout = Layout.of((name, names[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items())
    draft = Draft(of(root, incarnation, step))
    manifest = draft.write(layout, (t.contiguous().reshape(-1).view(torch.uint8).numpy() for t in tensors.values()))
    return policy(incarnation, step, draft.publish(), manifest=manifest, **changes)


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


def evaluated(out: Path, model: str, greedy: Sequence[bool], samples: Sequence[Sequence[bool]] | None = None) -> None:
    """The results of a model on a set `sums`, as `hero eval` writes them; without samples one like the greedy one."""
    drawn = samples or [[right] for right in greedy]

    def one(right: bool) -> dict[str, Any]:
        status = "correct" if right else "wrong"
        return {"status": status, "extracted": str(int(right)), "tokens": 8, "finish": "stop", "text": ""}

    problems = [
        {
            "line": number,
            "question": f"{number}?",
            "gold": "1",
            "task": None,
            "prompt_tokens": 5,
            "greedy": one(first),
            "samples": [one(right) | {"vote": 1 - right} for right in others],
        }
        for number, (first, others) in enumerate(zip(greedy, drawn, strict=True), 1)
    ]
    asked = Asked(
        set_digest="d",
        verifier="math",
        unevaluated=False,
        max_chars=4000,
        system_prompt="",
        samples=len(drawn[0]),
        temperature=1.0,
        top_p=1.0,
        max_tokens=16,
        max_model_len=64,
        dtype="float32",
        seed=0,
    )
    write(out, Result(model, "sums", f"models/{model}", f"{model}@1", asked, 1.5, problems))
