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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from common import config
from common.families import PHRASES
from common.generated import training
from common.tasks import Problem
from deploy.evaluation import rows, sets
from deploy.experiments.hero_vs_baselines import notation, protocol
from deploy.experiments.hero_vs_baselines.gate import Verdicts, judged_by_the_gate, measured
from deploy.experiments.hero_vs_baselines.hero import hero, keep
from deploy.experiments.hero_vs_baselines.protocol import Inputs, Labels
from deploy.run_folder import write_atomically


def prepare(
    seed: int, out: Path, say: Callable[[str], object], look: Callable[[], object]
) -> tuple[Inputs, dict[str, Any]]:
    """The inputs of a seed's cells, and what is known of them for the results.

    `say` is told what is being made, `look` is called meanwhile, as `hero.hero` has it.
    """
    folder = (out / f"seed-{seed}").resolve()
    settings = _settings(seed, folder)
    file = keep(settings, folder / "settings.json")
    policy = folder / "policy"
    if not (policy / "sft.json").is_file():
        say("cold start")
        _cold_start(folder, file, look)
    samples = folder / "samples"
    if not (samples / "eval.json").is_file():
        say("its samples")
        probing = ["--eval.temperature=1.0", "--eval.top_p=1.0"]
        hero(folder / "samples.log", "eval", f"cold={policy}", "--config", file, "--out", samples, *probing, look=look)
    if not (folder / "gate.json").is_file():
        say("what the gate accepts")
        _gate(file, samples, folder)
    critic = folder / "critic"
    if not (critic / "sft.json").is_file():
        say("cold start of the critic")
        _critic(seed, settings, folder, file, look)
    models: dict[Labels, Path] = {}
    for labels in get_args(Labels):
        models[labels] = folder / f"rm-{labels}"
        if not (models[labels] / "rm.json").is_file():
            say(f"reward model on labels of the {labels}")
            _reward_model(file, models[labels], labels, folder, look)
    quality = {labels: json.loads((model / "rm.json").read_text())["quality"] for labels, model in models.items()}
    known = {
        "policy": rows.read_all(samples)[0].identity,
        "gate": json.loads((folder / "gate.json").read_text()),
        "reward_models": {
            labels: {test: q[f"{test}.jsonl"] for test in protocol.TESTS} for labels, q in quality.items()
        },
    }
    return Inputs(policy, models), known


def _settings(seed: int, folder: Path) -> protocol.Settings:
    found = protocol.base()
    protocol.merge(
        found,
        {
            "run": {"seed": seed, "folder": str(folder / "none")},
            "model": {"policy": str(folder / "policy")},
            "sft": {"out": str(folder / "policy")},
        },
    )
    return found


def _cold_start(folder: Path, file: Path, look: Callable[[], object]) -> None:
    problems = training(config.load(file), "sft", None)
    lines = [{"question": p.question, "answer": p.answer, "solution": notation.solution(p)} for p in problems]
    write_atomically(folder / "cold_start.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for leftover in (folder / "policy", folder / "policy-untrained"):
        shutil.rmtree(leftover, ignore_errors=True)
    hero(folder / "sft.log", "sft", file, *_data(folder), look=look)


def _critic(seed: int, settings: protocol.Settings, folder: Path, file: Path, look: Callable[[], object]) -> None:
    from learner import small_model

    untrained, out = folder / "critic-untrained", folder / "critic"
    for leftover in (untrained, out):
        shutil.rmtree(leftover, ignore_errors=True)
    longest = settings["actor"]["max_model_len"]
    small_model.create(untrained, seed, layers=protocol.CRITIC_LAYERS, max_tokens=longest, phrases=PHRASES)
    flags = [f"--sft.{key}={value}" for key, value in protocol.CRITIC["sft"].items()]
    hero(
        folder / "critic.log",
        "sft",
        file,
        f"--sft.base={untrained}",
        f"--sft.out={out}",
        *_data(folder),
        *flags,
        look=look,
    )


def _data(folder: Path) -> list[str]:
    """What `hero sft` reads."""
    return [f"--data.train={folder / 'cold_start.jsonl'}", "--data.solution=solution"]


def _gate(file: Path, samples: Path, folder: Path) -> None:
    settings = config.load(file)
    found = {}
    for test in protocol.TESTS:
        held = sets.read(samples, test)
        [result] = [r for r in rows.read_all(samples) if r.set == test]
        verdicts = judged_by_the_gate(settings, held.problems, result.problems)
        found[test] = measured(verdicts)
        write_atomically(
            folder / f"{test}.jsonl", "".join(json.dumps(row) + "\n" for row in _labelled(held.problems, verdicts))
        )
    write_atomically(folder / "gate.json", json.dumps(found, indent=1))


def _labelled(problems: Sequence[Problem], verdicts: Verdicts) -> list[dict[str, Any]]:
    return [
        {
            "question": problems[v.problem].question,
            "answer": problems[v.problem].answer,
            "completion": v.text,
            "correct": v.right,
        }
        for v in verdicts
    ]


def _reward_model(file: Path, out: Path, labels: Labels, folder: Path, look: Callable[[], object]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    further = json.dumps([str(folder / f"{test}.jsonl") for test in protocol.TESTS])
    kind = "task" if labels == "task" else "paper"
    flags = [
        f"--rm.base={folder / 'critic'}",
        f"--rm.out={out}",
        f"--rm.label={kind}",
        f"--rm.further={further}",
        "--verifier.children=2",
    ]
    hero(folder / f"{out.name}.log", "rm", file, *flags, look=look)
