"""The policy on two ranks against the same policy on one: steps, checkpoints, exports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from deploy.processes import Processes
from learner.policy import Policy, PolicyOptions
from learner.ranks import Ranks
from learner.team import Team
from tests import tiny_models
from tests.integration.team_script import BATCHES, RANKS, STAGES, TEMPERATURE, options, resumed, trained, uninterrupted
from tests.small_disk import SmallDisk
from tests.until import until

Found = dict[str, Any]

pytestmark = pytest.mark.timeout(600)


def alone(folder: Path, chosen: PolicyOptions) -> Team:
    return Team(Policy(folder / "model", chosen), Ranks(0, {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("team")
    tiny_models.policy(made / "model")
    return made


@pytest.fixture(scope="module")
def one(folder: Path) -> Found:
    """What one rank makes of the batches, and its checkpoints."""
    found = {f"one mini-step {stage}": trained(alone(folder, options(stage, 1)), BATCHES) for stage in STAGES}
    return found | {
        f"uninterrupted {stage}": uninterrupted(alone(folder, options(stage)), folder / f"one-{stage}")
        for stage in STAGES
    }


@pytest.fixture(scope="module")
def two(folder: Path, one: Found) -> Found:
    disk = SmallDisk(folder / "disk", megabytes=1)
    disk.fill()
    logs = [folder / f"rank-{rank}.log" for rank in range(RANKS)]
    script = ["tests.integration.team_script", str(folder), str(disk.folder)]
    job = Processes([sys.executable, "-m", *script], 1, None, logs)
    try:
        until(lambda: job.poll() is not None, "end of the ranks", 500)
        assert job.poll() == 0, "\n".join(log.read_text()[-5000:] for log in logs)
    finally:
        job.kill()
        disk.close()
    found: Found = torch.load(folder / "found.pt", weights_only=False)
    return found


def alike(ours: Found, theirs: Found, tolerance: float) -> None:
    """Adam divides by the root of its second moment: where a gradient is noise of 1e-8, so is its direction."""
    assert ours["weights"].keys() == theirs["weights"].keys()
    distances = [(weight - theirs["weights"][name]).abs().flatten() for name, weight in ours["weights"].items()]
    assert torch.cat(distances).quantile(0.999) <= tolerance and torch.cat(distances).max() <= 10 * tolerance
    for a, b in zip(ours["logprobs"], theirs["logprobs"], strict=True):
        np.testing.assert_allclose(a, b, atol=10 * tolerance)


# All steps together move a weight by about 8e-3.
@pytest.mark.parametrize("scenario", ["one mini-step", "uninterrupted"])
@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_make_what_one_makes(one: Found, two: Found, scenario: str, stage: int) -> None:
    ours, theirs = two[f"{scenario} {stage}"], one[f"{scenario} {stage}"]
    alike(ours, theirs, 1e-5)
    for mine, other in zip(ours["metrics"], theirs["metrics"], strict=True):
        for name in (
            "loss",
            "tokens",
            "sequences",
            "grad_norm",
            "kl_behaviour",
            "logprob_difference_max",
            "lr",
            "ess",
            "ratio_histogram",
        ):
            assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    shares = [found["metrics"][0]["shared_prompt_share"] for found in (ours, theirs)]
    assert shares[0] > 0.7 * shares[1] > 0.05, "prompts stay together"


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_resume_bit_for_bit(two: Found, stage: int) -> None:
    ours = two[f"resumed {stage}"]
    alike(ours, two[f"uninterrupted {stage}"], 0.0)
    assert ours["applied"] == 4 + 3 + 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_of_one_rank_goes_on_with_two(one: Found, two: Found, stage: int) -> None:
    alike(two[f"from one rank {stage}"], one[f"uninterrupted {stage}"], 1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_of_two_ranks_goes_on_with_one(folder: Path, two: Found, stage: int) -> None:
    alike(resumed(alone(folder, options(stage)), folder / f"two-{stage}"), two[f"uninterrupted {stage}"], 1e-5)
    assert not list(folder.glob(".*-universal")), "nothing is left of the conversion"


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_not_finite_on_one_rank_is_applied_on_none(two: Found, stage: int) -> None:
    assert two[f"poisoned {stage}"] == {"skipped": 1, "unchanged": True, "applied": 1}


def test_a_full_disk_of_any_rank_is_told_to_rank_0_and_the_next_try_holds(two: Found) -> None:
    found = two["full"]
    assert [told.partition(" has no space left")[0] for told in found["said"]] == ["rank 1", "rank 0", "rank 0"]
    assert found["lacking"] == []


@pytest.mark.parametrize("stage", [2, 3])
def test_an_export_of_two_ranks_is_the_policy(folder: Path, two: Found, stage: int) -> None:
    found = two[f"export {stage}"]
    assert found["at"] == folder / f"export-{stage}"
    model = AutoModelForCausalLM.from_pretrained(found["at"])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, found["weights"][name]), name
    for sequence, logprobs in zip(BATCHES[1], found["logprobs"], strict=True):
        ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids]))
        logits = model(input_ids=ids[None]).logits[0, len(sequence.prompt_ids) - 1 : -1] / TEMPERATURE
        expected = logits.log_softmax(-1).gather(-1, ids[len(sequence.prompt_ids) :, None])[:, 0]
        assert logprobs == pytest.approx(expected.detach().numpy(), abs=1e-5)
