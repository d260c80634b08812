"""The record inside a checkpoint, played again: the same groups in the same order must make the same weights."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack
import torch

from common.schema import Scored
from common.settings import Sections
from learner.advantage import advantages
from learner.checkpoint import Checkpoint
from learner.groups import sequences
from learner.ledger import Ledger
from learner.options import policy_options
from learner.policy import Policy


def differing(settings: Sections, found: Checkpoint, groups: Mapping[int, Scored]) -> list[str]:
    """Weights of a checkpoint that are not, bit for bit, those of a run without any interruption.

    That run starts from `model.policy` and trains, step by step, on what the checkpoint's ledger says went into it;
    `groups` by ticket id.
    """
    ledger = Ledger.restored(msgpack.unpackb(found.state)["ledger"])
    options = policy_options(settings)
    replayed, saved = (Policy(settings.model.policy, options) for _ in range(2))  # type: ignore[arg-type]
    for step in range(1, found.step + 1):
        batch = [groups[id] for id in ledger.trained_in(step)]
        gains = [advantages(g.r_hat, g.weight, settings.learner.advantage) for g in batch]
        replayed.step(sequences(batch, gains), settings.sampling.temperature)
    saved.load(found.policy)
    pairs = zip(replayed.named_weights(), saved.named_weights(), strict=True)
    return [name for (name, ours), (_, theirs) in pairs if not torch.equal(ours, theirs)]
