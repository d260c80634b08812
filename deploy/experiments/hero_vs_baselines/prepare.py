"""What the cells of a seed start from: cold-started policy, what the gate makes of its answers, two reward models.

OUT/seed-1/cold_start.jsonl     worked solutions in the notations of `notation`
OUT/seed-1/policy               cold-started on them
OUT/seed-1/samples/             its samples of both held-out sets at temperature 1 (`hero eval`)
OUT/seed-1/gate.json            what the gate accepts of them, by the tasks' own scorers
OUT/seed-1/easy.jsonl, ...      the same samples, labelled, for the reward models' held-out figures
OUT/seed-1/critic               the reward models' backbone: deeper, cold-started on the same solutions to the end
OUT/seed-1/rm-task, rm-gate     reward models by their labels, each with rm.json

Every part is kept when it is finished, and made when it is missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from common import config
from common.families import PHRASES
from common.generated import training
from common.models import identity
from common.tasks import Problem
from deploy.evaluation import rows, sets
from deploy.experiments.hero_vs_baselines import notation, protocol
from deploy.experiments.hero_vs_baselines.gate import Verdicts, judged_by_the_gate, measured
from deploy.experiments.hero_vs_baselines.hero import hero, keep
from deploy.experiments.hero_vs_baselines.protocol import Inputs, Labels
from deploy.run_folder import write_atomically

SAMPLED = "cold"
"""What the cold-started policy is called where it is sampled."""


def prepare(
    seed: int, out: Path, say: Callable[[str], object], look: Callable[[], object]
) -> tuple[Inputs, dict[str, Any]]:
    """The inputs of a seed's cells, and what is known of them for the results.

    `say` is told what is being made, `look` is called meanwhile, as `hero.hero` has it.
    """
    made = _Seed(seed, (out / f"seed-{seed}").resolve(), look)
    for finished, what, make in made.parts():
        if not finished.is_file():
            say(what)
            make()
    return Inputs(made.policy, made.reward_models), made.known()


class _Seed:
    """The folder of a seed. Of each part a file is there when it is finished."""

    def __init__(self, seed: int, folder: Path, look: Callable[[], object]) -> None:
        self._seed, self._folder, self._look = seed, folder, look
        self.policy, self._samples, self._critic = folder / "policy", folder / "samples", folder / "critic"
        self.reward_models: dict[Labels, Path] = {labels: folder / f"rm-{labels}" for labels in get_args(Labels)}
        self._settings = protocol.base()
        own: protocol.Settings = {
            "run": {"seed": seed, "folder": str(folder / "none")},
            "model": {"policy": str(self.policy)},
        }
        protocol.merge(self._settings, own)
        self._file = keep(self._settings, folder / "settings.json")

    def parts(self) -> Iterator[tuple[Path, str, Callable[[], None]]]:
        """What it is finished by, what it is, how it is made; in order."""
        yield self.policy / "sft.json", "cold start", self._make_policy
        yield self._samples / "eval.json", "its samples", self._make_samples
        yield self._folder / "gate.json", "what the gate accepts", self._make_gate
        yield self._critic / "sft.json", "cold start of the critic", self._make_critic
        for labels, model in self.reward_models.items():
            what = f"reward model on labels of the {labels}"
            yield model / "rm.json", what, partial(self._make_reward_model, labels, model)

    def known(self) -> dict[str, Any]:
        """Of the finished parts."""
        quality = {
            labels: json.loads((model / "rm.json").read_text())["quality"]
            for labels, model in self.reward_models.items()
        }
        return {
            "policy": identity("policy", self.policy),
            "gate": json.loads((self._folder / "gate.json").read_text()),
            "reward_models": {
                labels: {test: found[f"{test}.jsonl"] for test in protocol.TESTS} for labels, found in quality.items()
            },
        }

    def _hero(self, name: str, *arguments: object) -> None:
        hero(self._folder, name, *arguments, look=self._look)

    def _sft(self, name: str, out: Path, *flags: object) -> None:
        shutil.rmtree(out, ignore_errors=True)
        data = f"--data.train={self._folder / 'cold_start.jsonl'}"
        self._hero(name, "sft", self._file, data, "--data.solution=solution", f"--sft.out={out}", *flags)

    def _make_policy(self) -> None:
        problems = training(config.load(self._file), "sft", None)
        rows = ({"question": p.question, "answer": p.answer, "solution": notation.solution(p)} for p in problems)
        _write(self._folder / "cold_start.jsonl", rows)
        shutil.rmtree(self._folder / "policy-untrained", ignore_errors=True)
        self._sft("sft", self.policy)

    def _make_samples(self) -> None:
        probing = ["--eval.temperature=1.0", "--eval.top_p=1.0"]
        to = ["--config", self._file, "--out", self._samples]
        self._hero("samples", "eval", f"{SAMPLED}={self.policy}", *to, *probing)

    def _make_gate(self) -> None:
        settings = config.load(self._file)
        found = {}
        for test in protocol.TESTS:
            problems = sets.read(self._samples, test).problems
            result = rows.read(rows.path(self._samples, SAMPLED, test))
            verdicts = judged_by_the_gate(settings, problems, result.problems)
            found[test] = measured(verdicts)
            _write(self._folder / f"{test}.jsonl", _labelled(problems, verdicts))
        write_atomically(self._folder / "gate.json", json.dumps(found, indent=1))

    def _make_critic(self) -> None:
        from learner import small_model

        untrained, longest = self._folder / "critic-untrained", self._settings["actor"]["max_model_len"]
        shutil.rmtree(untrained, ignore_errors=True)
        layers = protocol.CRITIC_LAYERS
        small_model.create(untrained, self._seed, layers=layers, max_tokens=longest, phrases=PHRASES)
        flags = [f"--sft.{key}={value}" for key, value in protocol.CRITIC["sft"].items()]
        self._sft("critic", self._critic, f"--sft.base={untrained}", *flags)

    def _make_reward_model(self, labels: Labels, out: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        further = json.dumps([str(self._folder / f"{test}.jsonl") for test in protocol.TESTS])
        kind = "task" if labels == "task" else "paper"
        flags = [f"--rm.base={self._critic}", f"--rm.out={out}", f"--rm.label={kind}", f"--rm.further={further}"]
        self._hero(out.name, "rm", self._file, *flags, "--verifier.children=2")


def _labelled(problems: Sequence[Problem], verdicts: Verdicts) -> Iterator[dict[str, Any]]:
    for verdict in verdicts:
        problem = problems[verdict.problem]
        yield {
            "question": problem.question,
            "answer": problem.answer,
            "completion": verdict.text,
            "correct": verdict.right,
        }


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))
