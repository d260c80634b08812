"""The record inside a checkpoint, played again: the same groups in the same order must make the same weights.

`python -m tests.replay SETTINGS RUN_FOLDER GROUPS` prints what differs as a list in JSON; GROUPS is a msgpack map of
ticket ids to scored messages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgpack
import torch

from common import config
from common.schema import Scored, unpack
from common.settings import Sections
from learner import checkpoint
from learner.advantage import batch_advantages
from learner.checkpoint import Checkpoint
from learner.groups import graded, order_of, sequences
from learner.ledger import Ledger
from learner.options import policy_options
from learner.policy import Policy
from learner.reliability import Gate


def differing(settings: Sections, found: Checkpoint, groups: Mapping[int, Scored]) -> list[str]:
    """Weights of a checkpoint that are not, bit for bit, those of a run without any interruption.

    That run starts from `model.policy` and trains, step by step, on what the checkpoint's ledger says went into it;
    `groups` by ticket id. A record of which most steps have no advantage, and so no effect, proves nothing: told too.
    """
    state = msgpack.unpackb(found.state)
    ledger = Ledger.restored(state["ledger"])
    options = policy_options(settings)
    replayed, saved = (Policy(settings.model.policy, options) for _ in range(2))  # type: ignore[arg-type]
    gate = Gate(settings.learner.min_rm_auroc)
    idle = 0
    for step in range(1, found.step + 1):
        batch = [groups[id] for id in ledger.trained_in(step)]
        floor = settings.reward.correct_floor
        known = [graded(group) for group in batch]
        gains = batch_advantages(known, settings.learner, floor, gate.silenced(known))
        idle += not any(gain.any() for gain in gains)
        order = order_of(settings, replayed.vocabulary)
        replayed.step(sequences(batch, gains, order), settings.sampling.temperature)
    saved.load(found.policy)
    pairs = zip(replayed.named_weights(), saved.named_weights(), strict=True)
    unlike = [name for (name, ours), (_, theirs) in pairs if not torch.equal(ours, theirs)]
    told = [f"weights {name} are not those of an uninterrupted run" for name in unlike]
    told += [f"the running AUROC is {state['rm_auroc']}, not {gate.mean}"] * (state["rm_auroc"] != gate.mean)
    return told + [f"{idle} of {found.step} steps had no effect"] * (2 * idle > found.step)


def main(arguments: Sequence[str]) -> int:
    settings, run, groups = (Path(argument) for argument in arguments)
    sections = config.load(settings, [])
    torch.set_num_threads(sections.learner.threads)
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    bodies = msgpack.unpackb(groups.read_bytes(), strict_map_key=False)
    messages = {id: message for id, body in bodies.items() if isinstance(message := unpack(body), Scored)}
    print(json.dumps(differing(sections, found, messages)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
