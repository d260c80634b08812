"""The stages of a run, each alone, without broker, sandbox and other processes, on the groups of that run.

`python -m tests.bench.stages STAGE SETTINGS LOG`: SETTINGS is the run's settings.json, LOG lines of its reward log.
Prints {"wall", "cpu"}: seconds for all these groups, without start, imports and first calls. A process for each
stage, as in the run.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import config, logs
from common.settings import Sections

Group = dict[str, Any]
"""A line of the reward log, see `learner.reward_log.record`."""
Measured = dict[str, float]
"""{"wall": s, "cpu": s}."""


def sampling(settings: Sections, groups: list[Group]) -> Measured:
    """The adapter's add and step in a plain loop; each sequence samples exactly as many tokens as it did in the run."""
    from actors.engine import EngineOptions
    from actors.vllm_adapter import VllmAdapter
    from learner.render import Renderer

    options, limit = settings.actor, settings.actor.groups_in_flight * settings.sampling.completions
    vllm = VllmAdapter(
        EngineOptions(
            str(settings.run.folder / "export"),
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            max_num_seqs=limit,
            kv_cache_gib=options.kv_cache_gib,
            threads=options.threads,
        )
    )
    renderer = Renderer(Path(settings.model.policy), settings.data.system_prompt)

    def sample(some: list[Group]) -> None:
        waiting = iter(
            [
                (renderer.prompt_ids(group["question"]).tolist(), completion["tokens"])
                for group in some
                for completion in group["completions"]
                if completion["tokens"]
            ]
        )
        in_flight = added = 0
        while True:
            while in_flight < limit and (following := next(waiting, None)):
                params = vllm.sampling_params(
                    temperature=settings.sampling.temperature, max_tokens=following[1], ignore_eos=True, logprobs=0
                )
                vllm.add([f"{len(some)}-{added}"], following[0], params)
                in_flight, added = in_flight + 1, added + 1
            if not in_flight:
                return
            in_flight -= len(vllm.step())

    sample(groups[: options.groups_in_flight])
    return _timed(lambda: sample(groups))


def verification(settings: Sections, groups: list[Group]) -> Measured:
    """The verifier in this process; equal texts of a group are judged once, as the scorer does."""
    from scorer.verifier import answer_of, judge, warm_up

    logging.disable(logging.CRITICAL)
    options = settings.verifier
    warm_up(options.kind)

    def verify(some: list[Group]) -> None:
        for group in some:
            for text in {completion["text"] for completion in group["completions"]}:
                if answer := answer_of(options.kind, text, options.max_chars):
                    judge(options.kind, group["gold"], answer, group["meta"])

    verify(groups[:4])
    return _timed(lambda: verify(groups))


def scoring(settings: Sections, groups: list[Group]) -> Measured:
    """The reward model's forward passes over token ids that are ready; equal texts of a group are scored once."""
    import torch

    from scorer.reward_models.backends import make_reward_model
    from scorer.reward_models.classifier import logits
    from scorer.reward_models.rendering import batches, encode

    torch.set_num_threads(settings.scorer.threads)
    model = make_reward_model(settings)
    if model is None:
        return {"wall": 0.0, "cpu": 0.0}
    ready = []
    for start in range(0, len(groups), settings.scorer.batch_groups):
        taken = groups[start : start + settings.scorer.batch_groups]
        pairs = dict.fromkeys((group["question"], c["text"]) for group in taken for c in group["completions"])
        sequences = encode(model.tokenizer, list(pairs), model.usage)
        for places in batches([len(sequence) for sequence in sequences], model.batch_tokens):
            ready.append([sequences[place] for place in places])

    def score(some: list[Any]) -> None:
        with torch.inference_mode():
            for batch in some:
                logits(model.model, batch)

    score(ready[:2])
    return _timed(lambda: score(ready))


def training(settings: Sections, groups: list[Group]) -> Measured:
    """The policy's step for each batch of groups; `tests.bench.learner_step` compares such steps with plain torch."""
    import torch

    from learner.batch import Sequence
    from learner.options import policy_options
    from learner.policy import Policy
    from learner.render import Renderer

    torch.set_num_threads(settings.learner.threads)
    renderer = Renderer(Path(settings.model.policy), settings.data.system_prompt)
    end = renderer.tokenizer.eos_token_id
    steps = []
    for start in range(0, len(groups), settings.learner.groups_per_step):
        sequences = []
        for group in groups[start : start + settings.learner.groups_per_step]:
            prompt = renderer.prompt_ids(group["question"])
            for c in group["completions"]:
                ids = renderer.tokenizer(c["text"], add_special_tokens=False)["input_ids"]
                ids = np.array(ids + [end] * (c["finish"] == "stop"))
                if len(ids):
                    sequences.append(Sequence(prompt, ids, np.full(len(ids), -0.5), c["advantage"]))
        steps.append(sequences)
    policy = Policy(settings.run.folder / "export", policy_options(settings))

    def train() -> None:
        for batch in steps:
            policy.step(batch, settings.sampling.temperature)

    policy.step(steps[0], settings.sampling.temperature)
    return _timed(train)


STAGES: dict[str, Callable[[Sections, list[Group]], Measured]] = {
    "sampling": sampling,
    "verification": verification,
    "scoring": scoring,
    "training": training,
}


def _timed(work: Callable[[], None]) -> Measured:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    logs.quiet_libraries()
    stage, settings_file, log_file = sys.argv[1:]
    read = [json.loads(line) for line in Path(log_file).read_text(encoding="utf-8").splitlines()]
    print(json.dumps(STAGES[stage](config.from_dump(Path(settings_file).read_text()), read)))
