"""What a scorer takes: a verdict, a batch, and the reward model for each token."""

from __future__ import annotations

import torch

from common.settings import Sections
from scorer.reward_models.backends import make_reward_model
from scorer.reward_models.protocol import Sample
from scorer.sandbox import Item
from scorer.worker import make_sandbox
from tests.bench.stage_times.fit import Row, Stopwatch, nonnegative_fit
from tests.bench.stage_times.groups import group_tokens
from tests.bench.stages import Group


def measure(settings: Sections, groups: list[Group]) -> dict[str, float]:
    """verify_completion_s, score_batch_s, score_token_s."""
    torch.set_num_threads(settings.scorer.threads)
    size = settings.scorer.batch_groups
    batches = [groups[start : start + size] for start in range(0, len(groups), size)]
    batch_s, token_s = _reward_model(settings, batches)
    return {
        "verify_completion_s": _verification(settings, batches),
        "score_batch_s": batch_s,
        "score_token_s": token_s,
    }


def _verification(settings: Sections, batches: list[list[Group]]) -> float:
    items = [[Item(g["gold"], c["text"], g["meta"]) for g in batch for c in g["completions"]] for batch in batches]
    clock = Stopwatch(settings.verifier.children, children=True)
    with make_sandbox(settings) as sandbox:
        sandbox.verify(items[0])
        clock.start()
        for some in items:
            sandbox.verify(some)
        return clock.stop() / sum(map(len, items))


def _reward_model(settings: Sections, batches: list[list[Group]]) -> tuple[float, float]:
    """Seconds of a batch in any case, and of a token; each batch is scored whole, and its first group alone."""
    if (model := make_reward_model(settings)) is None:
        return 0.0, 0.0
    clock, rows = Stopwatch(settings.scorer.threads), list[Row]()
    for batch in [batches[0], *batches]:  # the first one twice: first calls
        for part in (batch, batch[:1]):
            samples = [Sample(g["question"], c["text"], g["gold"]) for g in part for c in g["completions"]]
            clock.start()
            model.score(samples)
            rows.append(([1.0, sum(group_tokens(settings, part))], clock.stop()))
    batch_s, token_s = nonnegative_fit(rows[2:])
    return batch_s, token_s
