"""The policy's resumable state: over stages, precisions and offloading; and what is refused with its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import CheckpointError
from common.settings import Sections
from learner import reshard
from learner.loss_inputs import LossOptions
from learner.policy import Policy, PolicyOptions
from tests import tiny_models
from tests.integration.team_script import BATCHES, TEMPERATURE, options

Weights = dict[str, torch.Tensor]


def chosen(stage: int, **changes: object) -> PolicyOptions:
    return replace(options(stage), normalization="token_mean", loss=LossOptions(), **changes)  # type: ignore[arg-type]


def trained(policy: Policy, batches: int = 1) -> Weights:
    for batch in BATCHES[:batches]:
        assert policy.step(batch, TEMPERATURE).skipped == 0
    return {name: weight.float().clone() for name, weight in policy.named_weights()}


def furthest(ours: Weights, theirs: Weights) -> float:
    return max(float((weight - theirs[name]).abs().max()) for name, weight in ours.items())


@pytest.fixture(scope="module")
def plain(model: Path) -> dict[str, Weights]:
    """What the simplest way makes of two batches, by precision."""
    simplest = {"float32": chosen(0), "bfloat16": chosen(1, dtype="bfloat16")}
    return {dtype: trained(Policy(model, way), 2) for dtype, way in simplest.items()}


# Two batches move a weight by up to 7e-3, in a direction that is noise where its gradient is noise. A bfloat16 weight
# is known to one part in 256: a norm's, near 1, may be rounded either way.
@pytest.mark.parametrize(
    ("stage", "offload", "dtype", "checkpointing", "tolerance"),
    [
        (1, "optimizer", "float32", False, 1e-4),
        (2, "optimizer", "float32", True, 1e-4),
        (3, "none", "float32", True, 1e-4),
        (3, "parameters", "float32", False, 1e-4),
        (1, "optimizer", "bfloat16", True, 1e-3),
        (2, "none", "bfloat16", False, 1e-3),
        (3, "parameters", "bfloat16", True, 1e-3),
    ],
)
def test_every_way_trains_alike_and_resumes_bit_for_bit(
    model: Path,
    tmp_path: Path,
    plain: dict[str, Weights],
    stage: int,
    offload: str,
    dtype: str,
    checkpointing: bool,
    tolerance: float,
) -> None:
    way = chosen(stage, offload=offload, dtype=dtype, gradient_checkpointing=checkpointing)
    policy = Policy(model, way)
    trained(policy)
    policy.save(tmp_path)
    expected = {}
    for number, going_on in enumerate((policy, Policy(model, way))):
        if number:
            going_on.load(tmp_path)
        assert going_on.step(BATCHES[1], TEMPERATURE).skipped == 0
        found = {name: weight.float().clone() for name, weight in going_on.named_weights()}
        assert furthest(found, expected or found) == 0.0
        expected = found
    rounding = 0.0 if dtype == "float32" else torch.finfo(torch.bfloat16).eps / 2
    for name, weight in plain[dtype].items():
        torch.testing.assert_close(
            expected[name], weight, rtol=rounding, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        ({"zero_stage": 4}, "Input should be 0, 1, 2 or 3"),
        ({"offload": "optimizer", "zero_stage": 0}, "set zero_stage = 1"),
        ({"offload": "parameters", "zero_stage": 2}, "set zero_stage = 3"),
        ({"ranks": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_deepspeed_cannot_keep_are_refused(learner: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sections.model_validate({"learner": learner})


@pytest.fixture(scope="module")
def saved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of stage 1."""
    folder = tmp_path_factory.mktemp("state")
    Policy(model, chosen(1)).save(folder)
    return folder


def _cut(folder: Path) -> None:
    file = folder / "deepspeed" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    file.write_bytes(file.read_bytes()[:1000])


def _of_two_ranks(folder: Path) -> None:
    file = folder / "policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ranks": 2}))


def _lost(*names: str) -> Callable[[Path], None]:
    def lose(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return lose


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_lost("policy.json"), "does not hold the state of a policy"),
        (_lost("deepspeed"), "the state of the policy in .* cannot be read"),
        (_lost("random-0.json"), "the state of the policy in .* cannot be read"),
        (_cut, "the state of the policy in .* cannot be read"),
        (_of_two_ranks, "is of 2 ranks and was not converted for 1"),
    ],
)
def test_a_damaged_state_is_refused_with_its_reason(
    model: Path, saved: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    shutil.copytree(saved, tmp_path / "state")
    damage(tmp_path / "state")
    with pytest.raises(CheckpointError, match=says):
        Policy(model, chosen(1)).load(tmp_path / "state")


def test_a_state_that_cannot_be_converted_names_the_remedy_and_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "state")
    _cut(tmp_path / "state")
    with (
        pytest.raises(CheckpointError, match=r"of 1 ranks and cannot be converted for 2: .* learner\.ranks = 1"),
        reshard.universal(tmp_path / "state", 2),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"zero_stage": 2}, "was written with zero_stage = 1, this is 2; set learner.zero_stage back"),
        ({"dtype": "bfloat16"}, "was written with dtype = float32, this is bfloat16; set learner.dtype back"),
        ({"lora_rank": 4}, "is of another model: .* is not there in it"),
    ],
)
def test_a_state_of_other_settings_is_refused(model: Path, saved: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        Policy(model, chosen(1, **changes)).load(saved)


def test_a_state_of_another_model_is_refused_with_both_shapes(saved: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "layers": 2, "heads": 1, "kv_heads": 1, "intermediate_size": 128}
    tiny_models.small_model.create(tmp_path, 0, **shape, max_tokens=128)
    with pytest.raises(
        CheckpointError, match=r"embed_tokens.weight is \[\d+, 64\] in it and \[\d+, 32\] in model.policy"
    ):
        Policy(tmp_path, PolicyOptions()).load(saved)
