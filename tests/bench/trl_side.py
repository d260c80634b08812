"""TRL's GRPOTrainer on the policy, problems and settings of a run: `python -m tests.bench.trl_side RUN OUT ...`.

RUN is the folder of a run of ours with `reward.mode = "verifier"`: settings.json and prompts.jsonl are read. TRL gets
the same chat prompts in the order of the run's tickets, token for token the ids that our actors get, and the verifier's
0/1 as its only reward. Appends a line to OUT/steps.jsonl at the end of each step, saves the policy to OUT/model.

What is set otherwise than TRL's defaults is either the run's (sampling, optimizer, clipping, centered advantages, the
mean over tokens) or what makes TRL faster here: no gradient checkpointing, no logging, float32, key-value cache, and
`Shape`. Completions come from transformers' generate: TRL's vLLM mode sets weights by the model's `load_weights`,
which vLLM's CPU build cannot do once its linear weights are packed, and asks for vLLM 0.31 or older.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import config, logs
from common.errors import ConfigError
from common.settings import Sections
from common.tasks import Problem

STEPS_FILE, MODEL = "steps.jsonl", "model"


@dataclass(frozen=True)
class Shape:
    """How TRL uses the machine; what is fastest depends on the model's size.

    Measured, CPU-seconds of a step of 256 completions of the quickstart's policy: 1.75 in four parts, 1.9 in 16, 2.0 in
    one; in four parts a step takes 1.68 s with one thread, 1.34 with two. SmolLM2: 32 sequences in one part take 14 GB,
    in four parts 5.
    """

    threads: int = 1
    """Of torch."""
    micro_batches: int = 1
    """Parts of a batch between two optimizer steps; all of it is sampled at once."""
    children: int = 2
    """Processes that verify while the trainer waits for them, one a core."""


def train(run: Path, out: Path, steps: int, seconds: float, shape: Shape) -> None:
    """Trains for so many steps, and until so many seconds have passed since the end of the first.

    The policy is saved at the end of the first step beyond `seconds`. Raises ConfigError for settings that TRL has no
    counterpart for, and where its prompts are not ours.
    """
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer

    from scorer.trl import HeroReward

    settings = config.from_dump((run / "settings.json").read_text())
    torch.set_num_threads(shape.threads)
    args = arguments(settings, out, shape)
    problems = in_order(run, settings)
    rows = [{"prompt": _chat(settings, problem), "answer": problem.answer} for problem in problems]
    verifier = settings.verifier.model_copy(update={"children": shape.children})
    with HeroReward(args, settings.model_copy(update={"verifier": verifier})) as reward:
        watched = Watched(reward)
        trainer: Any = GRPOTrainer(
            settings.model.policy,
            reward_funcs=watched,
            args=args,
            train_dataset=Dataset.from_list(rows),
            callbacks=[callback(out, steps, seconds, watched)],
        )
        refuse_other_tokens(trainer, settings, problems)
        trainer.train()


def arguments(settings: Sections, out: Path, shape: Shape) -> Any:
    """The GRPOConfig of a run's settings."""
    from trl import GRPOConfig

    o, sampling = settings.learner, settings.sampling
    _refuse_what_trl_has_not(settings)
    batch = o.groups_per_step * sampling.completions
    return GRPOConfig(
        output_dir=str(out), max_steps=10**9, seed=settings.run.seed, use_cpu=True, bf16=False, disable_tqdm=True,
        logging_strategy="no", save_strategy="no", report_to=[], model_init_kwargs={"dtype": "float32"},
        num_generations=sampling.completions, max_completion_length=sampling.max_tokens,
        temperature=sampling.temperature, top_p=1.0, top_k=0, shuffle_dataset=False,
        per_device_train_batch_size=batch // shape.micro_batches, gradient_accumulation_steps=shape.micro_batches,
        steps_per_generation=shape.micro_batches, num_iterations=1, gradient_checkpointing=False,
        beta=0.0, epsilon=o.clip_range[0], epsilon_high=o.clip_range[1], loss_type="dapo", scale_rewards="none",
        learning_rate=o.lr, adam_beta1=o.beta1, adam_beta2=o.beta2, weight_decay=o.weight_decay,
        max_grad_norm=o.max_grad_norm, lr_scheduler_type="constant_with_warmup", warmup_steps=o.warmup_steps,
    )  # fmt: skip


def _refuse_what_trl_has_not(settings: Sections) -> None:
    o = settings.learner
    needed = {
        "reward.mode": (settings.reward.mode, "verifier"),
        "learner.advantage": (o.advantage, "centered"),
        "learner.normalization": (o.normalization, "token_mean"),
        "learner.objective": (o.objective, "ppo"),
        "learner.mini_steps": (o.mini_steps, 1),
        "learner.kl_coefficient": (o.kl_coefficient, 0.0),
        "learner.lr_schedule": (o.lr_schedule, "constant"),
        "learner.dtype": (o.dtype, "float32"),
        "actor.dtype": (settings.actor.dtype, "float32"),
        "data.order": (settings.data.order, "shuffle"),
    }
    if other := [f"{key} = {has!r}: set {must!r}" for key, (has, must) in needed.items() if has != must]:
        raise ConfigError("TRL would not do the same as this run; " + "; ".join(other))


def in_order(run: Path, settings: Sections) -> list[Problem]:
    """The run's problems as its tickets have them, first epoch."""
    from learner.tickets import PromptOrder

    problems = [Problem(**json.loads(line)) for line in (run / "prompts.jsonl").read_text("utf-8").splitlines()]
    order = PromptOrder(len(problems), settings.run.seed)
    return [problems[order.row(ticket)] for ticket in range(len(problems))]


def _chat(settings: Sections, problem: Problem) -> list[dict[str, str]]:
    system = [{"role": "system", "content": settings.data.system_prompt}] if settings.data.system_prompt else []
    return [*system, {"role": "user", "content": problem.question}]


def refuse_other_tokens(trainer: Any, settings: Sections, problems: Sequence[Problem]) -> None:
    from learner.render import Renderer

    renderer = Renderer(Path(settings.model.policy), settings.data.system_prompt)
    theirs, *_ = trainer._tokenize_prompts([_chat(settings, problem) for problem in problems])
    for problem, ids in zip(problems, theirs, strict=True):
        if (mine := renderer.prompt_ids(problem.question).tolist()) != list(ids):
            raise ConfigError(f"{problem.question!r} is {mine} to our actors, {ids} to TRL: take another tokenizer")
    end = renderer.tokenizer.eos_token_id
    if trainer.eos_token_ids != [end]:
        raise ConfigError(
            f"TRL ends a completion at any of {trainer.eos_token_ids}, our actors at {end}: leave that one in "
            "generation_config.json"
        )


class Watched:
    """The reward function, and what it saw last."""

    __name__ = "verifier"

    def __init__(self, reward: Any) -> None:
        self._reward = reward
        self.seen: dict[str, Any] = {}

    def __call__(self, prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        started = time.monotonic()
        rewards: list[float] = self._reward(prompts, completions, **columns)
        self.seen = {
            "questions": list(dict.fromkeys(prompt[-1]["content"] for prompt in prompts)),
            "completions": len(completions),
            "completion_tokens_mean": statistics.mean(len(ids) for ids in completion_ids),
            "accuracy": statistics.mean(rewards),
            "reward_s": round(time.monotonic() - started, 4),
        }
        return rewards


def callback(out: Path, steps: int, seconds: float, watched: Watched) -> Any:
    """Writes a line at the end of each step, saves the policy once, and ends the training."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        first: float | None = None
        saved = False

        def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
            now = time.time()
            self.first = self.first or now
            with (out / STEPS_FILE).open("a") as file:
                print(json.dumps({"step": state.global_step, "time": now, **watched.seen}), file=file)
            late = now - self.first >= seconds
            if late and not self.saved:
                parts["model"].save_pretrained(out / MODEL)
                parts["processing_class"].save_pretrained(out / MODEL)
                self.saved = True
            control.should_training_stop = late and state.global_step >= steps

    return Clock()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trl_side", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run of ours")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--steps", type=int, default=10, help="at least so many (10)")
    parser.add_argument("--seconds", type=float, default=0.0, help="at least so long after the first step (0)")
    parser.add_argument("--threads", type=int, default=Shape.threads, help="of torch (%(default)s)")
    parser.add_argument("--micro-batches", type=int, default=Shape.micro_batches, help="of a step (%(default)s)")
    parser.add_argument("--children", type=int, default=Shape.children, help="that verify (%(default)s)")
    a = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logs.quiet_libraries()
    a.out.mkdir(parents=True)
    train(a.run, a.out, a.steps, a.seconds, Shape(a.threads, a.micro_batches, a.children))


if __name__ == "__main__":
    main()
