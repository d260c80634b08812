"""What a learner publishes is, tensor for tensor, its policy: cast, or as adapters of what is frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from actors.weight_load import _adapted, _tensors, check_adapters, tensor_shapes
from common.errors import WeightsError
from common.weights.folder import FILE, verify, versions
from learner.batch import Sequence
from learner.copy_out import CopyOut
from learner.policy import Policy, PolicyOptions
from learner.ranks import Ranks
from learner.team import Team

ZERO = pytest.mark.parametrize("stage", [1, 3])


def trained(model: Path, **options: object) -> Team:
    """A policy after two steps."""
    policy = Policy(model, PolicyOptions(lr=1e-2, **options))  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    for _ in range(2):
        batch = [
            Sequence(random.integers(0, 50, 5), random.integers(0, 50, 9), np.full(9, -3, np.float32), random.normal())
            for _ in range(8)
        ]
        policy.step(batch, 1.0)
    return Team(policy, Ranks(0, {}))


@ZERO
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_weight_once_in_the_actors_dtype(model: Path, tmp_path: Path, stage: int, dtype: str) -> None:
    team = trained(model, zero_stage=stage)
    copy_out = CopyOut(team, tmp_path, keep=2, dtype=dtype)
    assert copy_out.frozen(1) is None
    for step in range(3):
        draft, manifest = copy_out.version(1, step)
        verify(draft.publish() / FILE, manifest)
    assert [step for _, step, _ in versions(tmp_path)] == [1, 2]
    found = load_file(tmp_path / "v1-2" / FILE)
    expected = {name: weight.clone() for name, weight in team.named_weights()}
    assert found.keys() == expected.keys()
    assert "lm_head.weight" not in found, "a tied head is the embedding"
    for name, weight in expected.items():
        assert found[name].dtype == getattr(torch, dtype) and torch.equal(found[name], weight.to(found[name].dtype))


@ZERO
def test_adapters_travel_alone_and_make_the_same_weights(model: Path, tmp_path: Path, stage: int) -> None:
    team = trained(model, zero_stage=stage, lora_rank=4, lora_alpha=8.0)
    copy_out = CopyOut(team, tmp_path, keep=2, dtype="float32")
    frozen = copy_out.frozen(1)
    assert frozen and frozen.scale == 2.0 and copy_out.frozen(1) is frozen
    draft, manifest = copy_out.version(1, 2)
    adapters, below = draft.publish() / FILE, Path(frozen.folder) / FILE
    verify(adapters, manifest)
    verify(below, frozen.manifest)
    assert manifest.layout.data_bytes < frozen.manifest.layout.data_bytes / 3
    # What an actor adds up is what the learner computes with, bit for bit
    check_adapters(tensor_shapes([adapters]), tensor_shapes([below]), "adapters")
    found = dict(_adapted(_tensors([str(below)]), str(adapters), frozen.scale))
    expected = {name: weight.clone() for name, weight in team.named_weights()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    moved = [name for name, weight in load_file(below).items() if not torch.equal(weight, found[name])]
    assert moved and all(name.endswith("_proj.weight") for name in moved)
    # And a learner that starts again has frozen weights of its own
    again = CopyOut(team, tmp_path, keep=2, dtype="float32")
    assert again.frozen(2) and (tmp_path / "frozen-1").exists()
    for step in range(3):
        again.version(2, step)[0].publish()
    assert not (tmp_path / "frozen-1").exists(), "with its last version"


def test_adapters_of_another_model_are_refused() -> None:
    pair = dict(zip(("a", "b"), [(4, 64), (32, 4)], strict=True))
    weights = {"model.q_proj.weight": (32, 64), "model.norm.weight": (64,)}
    names = [f"base_model.model.model.q_proj.lora_{which}.weight" for which in "AB"]
    check_adapters(dict(zip(names, pair.values(), strict=True)), weights, "x")
    with pytest.raises(WeightsError, match=r"do not fit model.q_proj.weight \[32, 64\]"):
        check_adapters({names[0]: (4, 64)}, weights, "x")
    with pytest.raises(WeightsError, match="do not fit"):
        check_adapters(dict(zip(names, [(4, 32), (32, 4)], strict=True)), weights, "x")
    with pytest.raises(WeightsError, match=r"adapters of nothing here: base_model.model.other.lora_A.weight"):
        check_adapters({"base_model.model.other.lora_A.weight": (4, 64)}, weights, "x")
