"""The DeepSpeed policy on a tiny random Qwen3, against plain torch."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoModelForCausalLM, Gemma2Config

from common.errors import CheckpointError, ConfigError, ModelError
from learner import small_model
from learner.batch import Sequence
from learner.policy import Policy, PolicyOptions, StepResult
from tests import tiny_models

VOCABULARY = len(small_model.SPECIAL) + len(small_model.ALPHABET)
TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.policy(tmp_path_factory.mktemp("model"))


def sequences(count: int = 24, seed: int = 0) -> list[Sequence]:
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        length = int(generator.integers(1, 30))
        result.append(
            Sequence(
                generator.integers(0, VOCABULARY, int(generator.integers(1, 15))),
                generator.integers(0, VOCABULARY, length),
                generator.normal(-np.log(VOCABULARY), 0.3, length).astype(np.float32),
                float(generator.normal()),
            )
        )
    return result


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy.named_weights()}


def slow_logprobs(model: torch.nn.Module, sequence: Sequence) -> torch.Tensor:
    """One sequence at a time, without padding: logits over the whole of it, then the completion's part."""
    ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids]))
    logits = model(input_ids=ids[None]).logits[0, len(sequence.prompt_ids) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1).gather(-1, ids[len(sequence.prompt_ids) :, None])[:, 0]


def plain_steps(
    folder: Path, batch: list[Sequence], lr: float, count: int, normalization: str
) -> dict[str, torch.Tensor]:
    """Plain torch: one sequence at a time, unfused AdamW, clipping at 1."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, foreach=False)
    tokens = sum(len(sequence.completion_ids) for sequence in batch)
    for _ in range(count):
        for sequence in batch:
            logprobs = slow_logprobs(model, sequence)
            weight = (logprobs.detach() - torch.from_numpy(sequence.behaviour)).exp().clamp(max=2.0)
            gain = (weight * (logprobs - logprobs.detach()).exp() * sequence.advantage).sum()
            divisor = tokens if normalization == "token_mean" else len(batch) * len(logprobs)
            (-gain / divisor).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


# Two steps of Adam move a weight by about 2e-3: 1e-6 is a 2,000th of that.
@pytest.mark.parametrize(
    ("stage", "normalization"),
    [(0, "token_mean"), (1, "token_mean"), (2, "token_mean"), (3, "token_mean"), (1, "sequence_mean")],
)
def test_steps_equal_plain_torch(model_folder: Path, stage: int, normalization: str) -> None:
    batch = sequences()
    policy = Policy(
        model_folder,
        PolicyOptions(lr=1e-3, zero_stage=stage, micro_batch_tokens=150, normalization=normalization),  # type: ignore[arg-type]
    )
    for _ in range(2):
        result = policy.step(batch, TEMPERATURE)
    expected = plain_steps(model_folder, batch, 1e-3, 2, normalization)
    ours = weights(policy)
    assert ours.keys() == expected.keys()
    # Adam divides by the root of its second moment: where a gradient is noise of 1e-8, so is its direction.
    differences = torch.cat([(ours[name] - expected[name]).abs().flatten() for name in ours])
    assert differences.mean() < 1e-6
    assert differences.quantile(0.999) < 1e-5
    assert result.metrics["micro_batches"] > 3
    assert set(result.seconds) == {"proximal", "forward", "backward", "optimizer"}


def test_log_probabilities_equal_the_unpadded_model(model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    batch = sequences()
    ours = Policy(model_folder, PolicyOptions(micro_batch_tokens=150)).logprobs(batch, TEMPERATURE)
    for sequence, logprobs in zip(batch, ours, strict=True):
        expected = slow_logprobs(model, sequence).detach().numpy()
        assert logprobs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_gradient_does_not_know_the_micro_batches(model_folder: Path, stage: int) -> None:
    def norm_and_loss(tokens: int) -> list[float]:
        options = PolicyOptions(zero_stage=stage, micro_batch_tokens=tokens)  # type: ignore[arg-type]
        result = Policy(model_folder, options).step(sequences(), TEMPERATURE)
        return [result.metrics["grad_norm"], result.metrics["loss"]]

    whole = norm_and_loss(100_000)
    assert norm_and_loss(150) == pytest.approx(whole, rel=1e-5)


def test_mini_steps_keep_the_proximal_policy(model_folder: Path) -> None:
    policy = Policy(model_folder, PolicyOptions(lr=3e-3, mini_steps=4, micro_batch_tokens=150))
    before = policy.logprobs(sequences(), TEMPERATURE)
    result = policy.step(sequences(), TEMPERATURE)
    assert result.applied == 4
    assert result.metrics["kl_proximal"] > 1e-6  # the policy moved while the proximal one stood
    difference = np.concatenate([np.abs(ours - s.behaviour) for ours, s in zip(before, sequences(), strict=True)])
    assert result.metrics["logprob_difference_max"] == pytest.approx(difference.max(), rel=1e-5)
    assert result.seconds["proximal"] > 0.0


def test_one_mini_step_needs_no_proximal_pass(model_folder: Path) -> None:
    result = Policy(model_folder, PolicyOptions()).step(sequences(), TEMPERATURE)
    assert result.seconds["proximal"] == 0.0
    assert result.metrics["ratio_mean"] == 1.0


@pytest.mark.parametrize(
    ("stage", "dtype"), [(0, "float32"), (1, "float32"), (2, "float32"), (3, "float32"), (1, "bfloat16")]
)
def test_resuming_is_bit_for_bit(model_folder: Path, tmp_path: Path, stage: int, dtype: str) -> None:
    options = PolicyOptions(
        lr=1e-3,
        zero_stage=stage,
        dtype=dtype,
        micro_batch_tokens=150,
        mini_steps=2,
        warmup_steps=7,  # type: ignore[arg-type]
    )

    def go_on(policy: Policy) -> tuple[dict[str, torch.Tensor], list[StepResult], list[float]]:
        results = [policy.step(sequences(seed=seed), TEMPERATURE) for seed in (2, 3)]
        draws = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        return weights(policy), results, draws

    policy = Policy(model_folder, options)
    policy.step(sequences(seed=1), TEMPERATURE)
    policy.save(tmp_path)
    random.random(), np.random.rand(), torch.rand(())
    policy.load(tmp_path)
    expected, results, draws = go_on(policy)

    uninterrupted = Policy(model_folder, options)
    for seed in (1, 2, 3):
        uninterrupted.step(sequences(seed=seed), TEMPERATURE)
    resumed = Policy(model_folder, options)
    resumed.load(tmp_path)
    again, more, drawn = go_on(resumed)
    assert resumed.applied_steps == uninterrupted.applied_steps == 6
    assert [r.metrics for r in more] == [r.metrics for r in results]
    assert drawn == draws
    for name, weight in weights(uninterrupted).items():
        assert torch.equal(again[name], weight), name
        assert torch.equal(expected[name], weight), name


@pytest.mark.parametrize(
    ("stage", "dtype"),
    [(0, "float32"), (1, "float32"), (2, "float32"), (3, "float32"), (1, "bfloat16")],
)
def test_a_gradient_that_is_not_finite_is_never_applied(model_folder: Path, stage: int, dtype: str) -> None:
    policy = Policy(
        model_folder,
        PolicyOptions(lr=1e-3, zero_stage=stage, dtype=dtype, micro_batch_tokens=150),  # type: ignore[arg-type]
    )
    policy.step(sequences(), TEMPERATURE)
    before = weights(policy)
    good = sequences()
    bad = [*good[:-1], Sequence(good[-1].prompt_ids, good[-1].completion_ids, good[-1].behaviour, np.nan)]
    with capture_logs() as logs:
        result = policy.step(bad, TEMPERATURE)
    assert (result.applied, result.skipped) == (0, 1)
    assert "loss" not in result.metrics
    assert any("not finite" in entry["event"] for entry in logs)
    assert all(torch.equal(before[name], weight) for name, weight in weights(policy).items())
    after = policy.step(good, TEMPERATURE)  # nothing of the bad gradient is left
    assert (after.applied, after.skipped) == (1, 0)
    assert np.isfinite(after.metrics["grad_norm"])
    assert all(weight.isfinite().all() for weight in weights(policy).values())


@pytest.mark.parametrize("stage", [1, 3])
def test_an_export_is_the_policy(model_folder: Path, tmp_path: Path, stage: int) -> None:
    policy = Policy(model_folder, PolicyOptions(lr=1e-3, zero_stage=stage))  # type: ignore[arg-type]
    policy.step(sequences(), TEMPERATURE)
    policy.export(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (model_folder / "tokenizer.json").read_bytes()
    batch = sequences(4)
    for sequence, logprobs in zip(batch, policy.logprobs(batch, TEMPERATURE), strict=True):
        assert logprobs == pytest.approx(slow_logprobs(model, sequence).detach().numpy(), abs=1e-5)
    exported = {name: parameter.detach() for name, parameter in model.named_parameters()}
    ours = weights(policy)
    assert all(torch.equal(exported[name], ours[name]) for name in exported)


@pytest.mark.parametrize("stage", [1, 3])
def test_tied_weights_come_once_under_their_hugging_face_name(model_folder: Path, stage: int) -> None:
    names = [name for name, _ in Policy(model_folder, PolicyOptions(zero_stage=stage)).named_weights()]  # type: ignore[arg-type]
    assert len(names) == len(set(names))
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_the_learning_rate_warms_up(model_folder: Path) -> None:
    policy = Policy(model_folder, PolicyOptions(lr=4e-4, warmup_steps=4))
    rates = [policy.step(sequences(4), TEMPERATURE).metrics["lr"] for _ in range(5)]
    assert rates == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 4e-4])


def test_gradient_checkpointing_changes_no_gradient(model_folder: Path) -> None:
    norms = [
        Policy(model_folder, PolicyOptions(gradient_checkpointing=on))
        .step(sequences(), TEMPERATURE)
        .metrics["grad_norm"]
        for on in (False, True)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_a_model_that_caps_its_logits_takes_the_slower_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=128,
        final_logit_softcapping=0.5,
        attn_implementation="eager",
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    batch = sequences(6)
    ours = Policy(tmp_path, PolicyOptions()).logprobs(batch, TEMPERATURE)
    for sequence, logprobs in zip(batch, ours, strict=True):
        assert logprobs == pytest.approx(slow_logprobs(model, sequence).detach().numpy(), abs=1e-5)


def test_bfloat16_without_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="use zero_stage = 1"):
        PolicyOptions(dtype="bfloat16", zero_stage=0)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        Policy(tmp_path, PolicyOptions())


def test_a_folder_without_a_state_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold the state"):
        Policy(model_folder, PolicyOptions()).load(tmp_path)
