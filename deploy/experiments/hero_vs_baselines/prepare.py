"""What the cells of a seed start from: cold-started policy, what the gate makes of its answers, two reward models.

OUT/seed-1/cold_start.jsonl     worked solutions in the notations of `notation`
OUT/seed-1/policy               cold-started on them
OUT/seed-1/samples/             its samples of both held-out sets at temperature 1 (`hero eval`)
OUT/seed-1/gate.json            what the gate accepts of them, by the tasks' own scorers
OUT/seed-1/easy.jsonl, ...      the same samples, labelled, for the reward models' held-out figures
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
    data = folder / "cold_start.jsonl"
    write_atomically(data, "".join(json.dumps(line) + "\n" for line in lines))
    for leftover in (folder / "policy", folder / "policy-untrained"):
        shutil.rmtree(leftover, ignore_errors=True)
    hero(folder / "sft.log", "sft", file, f"--data.train={data}", "--data.solution=solution", look=look)


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
    flags = [f"--rm.out={out}", f"--rm.label={kind}", f"--rm.further={further}"]
    hero(folder / f"{out.name}.log", "rm", file, *flags, look=look)
