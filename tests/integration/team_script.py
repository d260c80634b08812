"""A policy on several ranks, under a launcher: `python -m tests.integration.team_script FOLDER DISK`.

FOLDER holds a model, and a checkpoint of one rank for each stage; what rank 0 finds is written beside them. DISK is
full.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from common.errors import DiskFull
from common.settings import Sections
from learner import small_model
from learner.batch import Sequence
from learner.loss_inputs import LossOptions
from learner.policy import Policy, PolicyOptions
from learner.policy_state import TAG, lacking
from learner.ranks import Ranks, joined
from learner.team import Team, follow

VOCABULARY = len(small_model.SPECIAL) + len(small_model.ALPHABET)
TEMPERATURE = 0.8
STAGES = (0, 1, 2, 3)
RANKS = 2


def sequences(count: int, seed: int) -> list[Sequence]:
    """Four of them to a prompt."""
    generator = np.random.default_rng(seed)
    prompts = [generator.integers(0, VOCABULARY, int(generator.integers(1, 25))) for _ in range(0, count, 4)]

    def one(prompt: npt.NDArray[np.int64]) -> Sequence:
        completion = generator.integers(0, VOCABULARY, int(generator.integers(1, 25)))
        behaviour = generator.normal(-np.log(VOCABULARY), 0.3, len(completion)).astype(np.float32)
        return Sequence(prompt, completion, behaviour, float(generator.normal()))

    return [one(prompts[place // 4]) for place in range(count)]


BATCHES = [sequences(24, 1), sequences(3, 2), sequences(1, 3)]
"""The second leaves a rank without work in some mini-steps, the third in all of them."""


LOSSES = {
    0: LossOptions(),
    1: LossOptions(correction="icepop", sequence_mask="geometric"),
    2: LossOptions(objective="gspo", kl_coefficient=0.1),
    3: LossOptions(objective="cispo"),
}


def options(stage: int, mini_steps: int = 4) -> PolicyOptions:
    """Several micro-batches in each mini-step; of every stage another loss."""
    return PolicyOptions(
        lr=1e-3,
        weight_decay=0.1,
        zero_stage=stage,  # type: ignore[arg-type]
        mini_steps=mini_steps,
        micro_batch_tokens=60,
        loss=LOSSES[stage],
        normalization="sequence_mean" if stage == 1 else "token_mean",
    )


def weights(team: Team) -> dict[str, torch.Tensor]:
    return {name: weight.to("cpu", copy=True) for name, weight in team.named_weights()}


def trained(team: Team, batches: list[list[Sequence]]) -> dict[str, Any]:
    """Metrics of each step, and what became of the policy."""
    metrics = [team.step(batch, TEMPERATURE).metrics for batch in batches]
    return {"metrics": metrics, "weights": weights(team), "logprobs": team.logprobs(BATCHES[1], TEMPERATURE)}


def uninterrupted(team: Team, folder: Path) -> dict[str, Any]:
    """All batches, with a checkpoint after the first."""
    first = trained(team, BATCHES[:1])
    team.save(folder)
    rest = trained(team, BATCHES[1:])
    return rest | {"metrics": first["metrics"] + rest["metrics"]}


def resumed(team: Team, folder: Path) -> dict[str, Any]:
    team.load(folder)
    return trained(team, BATCHES[1:]) | {"applied": team.applied_steps}


def poisoned(team: Team) -> dict[str, Any]:
    """One sequence of one rank spoils the step of all; the next is as if nothing had been."""
    before = weights(team)
    bad = team.step([*BATCHES[0][:-1], replace(BATCHES[0][-1], advantage=np.nan)], TEMPERATURE)
    unchanged = all(torch.equal(weight, before[name]) for name, weight in weights(team).items())
    good = team.step(BATCHES[0], TEMPERATURE)
    return {"skipped": bad.skipped, "unchanged": unchanged, "applied": good.applied}


def exported(team: Team, folder: Path) -> dict[str, Any]:
    """After a look at the weights that somebody gave up in the middle."""
    walk = team.named_weights()
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    return trained(team, BATCHES) | {"at": team.export(folder)}


def full(team: Team, folder: Path, disk: Path) -> dict[str, Any]:
    """Files of either rank on a full disk, one after the other; in the end there is room."""
    said = []
    for name in ("zero_pp_rank_1_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt", "../random-0.json"):
        file = folder / TAG / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(disk / "file")
        try:
            team.save(folder)
        except DiskFull as error:
            said.append(str(error))
        file.unlink()
    team.save(folder)
    return {"said": said, "lacking": lacking(folder, RANKS)}


def play(ranks: Ranks, folder: Path, disk: Path) -> dict[str, Any]:
    """Every scenario on policies of its own; what rank 0 finds, by name."""
    found: dict[str, Any] = {}

    def on(name: str, chosen: PolicyOptions, scenario: Callable[[Team], Any]) -> None:
        policy = Policy(folder / "model", chosen)
        if ranks.rank:
            follow(policy, ranks)
            return
        found[name] = scenario(Team(policy, ranks))
        for link in ranks.links.values():
            link.send({"order": "end"})

    for stage in STAGES:
        on(f"one mini-step {stage}", options(stage, 1), lambda team: trained(team, BATCHES))
        mine, ones = folder / f"two-{stage}", folder / f"one-{stage}"
        on(f"uninterrupted {stage}", options(stage), lambda team, mine=mine: uninterrupted(team, mine))
        on(f"resumed {stage}", options(stage), lambda team, mine=mine: resumed(team, mine))
        on(f"from one rank {stage}", options(stage), lambda team, ones=ones: resumed(team, ones))
        on(f"poisoned {stage}", options(stage, 1), poisoned)
    on("full", options(1), lambda team: full(team, folder / "full", disk))
    for stage in (2, 3):
        out = folder / f"export-{stage}"
        on(f"export {stage}", options(stage), lambda team, out=out: exported(team, out))
    return found


def main(folder: Path, disk: Path) -> int:
    torch.set_num_threads(1)
    settings = Sections.model_validate({"model": {"policy": str(folder / "model")}, "learner": {"ranks": RANKS}})
    with joined(settings) as ranks:
        found = play(ranks, folder, disk)
        if ranks.rank:
            assert ranks.order() == {"order": "end"}, "not before rank 0 is done"
    if ranks.rank == 0:
        torch.save(found, folder / "found.pt")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
