"""What the learner takes: a step by its tokens, a publication, a checkpoint."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from common.settings import Sections
from common.weights.folder import default_folder, prune
from learner import checkpoint
from learner.batch import Sequence
from learner.copy_out import CopyOut
from learner.options import policy_options
from learner.policy import Policy
from learner.publisher import check_sequence, check_sequences
from learner.ranks import Ranks
from learner.render import Renderer
from learner.team import Team
from tests.bench.stage_times.fit import Row, Stopwatch, nonnegative_fit
from tests.bench.stage_times.groups import group_tokens
from tests.bench.stages import Group

REPEATS = 3
SMALL_PART = 8  # a step on so small a part of a batch shows what a step takes in any case


def measure(settings: Sections, groups: list[Group]) -> dict[str, float]:
    """train_step_s, train_token_s, publish_s, checkpoint_s."""
    torch.set_num_threads(settings.learner.threads)
    clock = Stopwatch(settings.learner.threads)
    policy = Policy(settings.run.folder / "export", policy_options(settings))
    size, rows = settings.learner.groups_per_step, list[Row]()
    starts = range(0, len(groups) - size + 1, size)
    for start in [starts[0], *starts]:  # the first one twice: first calls
        for part in (groups[start : start + size], groups[start : start + max(1, size // SMALL_PART)]):
            batch = _sequences(settings, part)
            clock.start()
            policy.step(batch, settings.sampling.temperature)
            rows.append(([1.0, sum(group_tokens(settings, part))], clock.stop()))
    step_s, token_s = nonnegative_fit(rows[2:])
    publish_s, checkpoint_s = _writing(settings, policy, groups, clock)
    return {"train_step_s": step_s, "train_token_s": token_s, "publish_s": publish_s, "checkpoint_s": checkpoint_s}


def _sequences(settings: Sections, groups: list[Group]) -> list[Sequence]:
    renderer = Renderer(Path(settings.model.policy), settings.data.system_prompt)
    end, found = renderer.tokenizer.eos_token_id, []
    for group in groups:
        prompt = renderer.prompt_ids(group["question"])
        for c in group["completions"]:
            ids = renderer.tokenizer(c["text"], add_special_tokens=False)["input_ids"] + [end] * (c["finish"] == "stop")
            if ids:
                found.append(Sequence(prompt, np.array(ids), np.full(len(ids), -0.5), c["advantage"] or 0.0))
    return found


def _writing(settings: Sections, policy: Policy, groups: list[Group], clock: Stopwatch) -> tuple[float, float]:
    """Seconds of a publication with its check sequences, and of a checkpoint; medians."""
    root = default_folder(f"stage-times-{os.getpid()}", settings.run.folder)
    copy_out = CopyOut(Team(policy, Ranks(0, {})), root, 2, settings.actor.dtype)
    renderer = Renderer(Path(settings.model.policy), settings.data.system_prompt)
    check = [check_sequence(ids) for ids in check_sequences(renderer, (group["question"] for group in groups))]

    publish, commit = [], []
    with tempfile.TemporaryDirectory(dir=settings.run.folder) as folder:
        for turn in range(REPEATS + 1):
            clock.start()
            draft, _ = copy_out.version(1, turn)
            draft.publish()
            policy.logprobs(check, 1.0)
            publish.append(clock.stop())
            clock.start()
            checkpoint.save(Path(folder), 1, turn, policy.save, b"", 1)
            commit.append(clock.stop())
    prune(root, 0)
    root.rmdir()
    return statistics.median(publish[1:]), statistics.median(commit[1:])
