"""The DeepSpeed policy on a tiny random Qwen3, against plain torch."""

import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoModelForCausalLM, Gemma2Config

from common.errors import CheckpointError, ConfigError, ModelError
from learner import small_model
from learner.batch import MicroBatch, Sequence, filled_up, micro_batches
from learner.logprobs import CompletionLogprobs
from learner.loss_inputs import LossOptions, Objective
from learner.policy import Policy, PolicyOptions, StepResult
from tests import tiny_models

VOCABULARY = len(small_model.SPECIAL) + len(small_model.ALPHABET)
TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.policy(tmp_path_factory.mktemp("model"))


def sequences(count: int = 24, seed: int = 0) -> list[Sequence]:
    """Most of them in groups of five that have a prompt in common."""
    generator = np.random.default_rng(seed)
    result: list[Sequence] = []
    for place in range(count):
        length = int(generator.integers(1, 30))
        prompt = generator.integers(0, VOCABULARY, int(generator.integers(1, 15)))
        result.append(
            Sequence(
                result[-1].prompt_ids if place % 8 in (1, 2, 3, 4) else prompt,
                generator.integers(0, VOCABULARY, length),
                generator.normal(-np.log(VOCABULARY), 0.3, length).astype(np.float32),
                float(generator.normal()),
            )
        )
    return result


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy.named_weights()}


def slow_distributions(model: torch.nn.Module, sequence: Sequence) -> torch.Tensor:
    """One sequence at a time, without padding: log pi over the vocabulary at each token of the completion, [C, V]."""
    ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids]))
    logits = model(input_ids=ids[None]).logits[0, len(sequence.prompt_ids) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)


def slow_logprobs(model: torch.nn.Module, sequence: Sequence) -> torch.Tensor:
    chosen = torch.from_numpy(sequence.completion_ids)[:, None]
    return slow_distributions(model, sequence).gather(-1, chosen)[:, 0]


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
    ("stage", "normalization", "packing"),
    [
        (0, "token_mean", "auto"),
        (1, "token_mean", "auto"),
        (2, "token_mean", "auto"),
        (3, "token_mean", "auto"),
        (1, "sequence_mean", "auto"),
        (1, "token_mean", "off"),
    ],
)
def test_steps_equal_plain_torch(model_folder: Path, stage: int, normalization: str, packing: str) -> None:
    batch = sequences()
    policy = Policy(
        model_folder,
        PolicyOptions(lr=1e-3, zero_stage=stage, micro_batch_tokens=150, normalization=normalization, packing=packing),  # type: ignore[arg-type]
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
    assert result.metrics["micro_batches"] > 2
    assert (result.metrics["padding_share"] < 0.02) == (packing == "auto")
    assert 0.0 < result.metrics["attention_padding_share"] < 0.2
    assert (0.1 < result.metrics["shared_prompt_share"] < 0.3) == (packing == "auto")
    assert packing == "auto" or result.metrics["shared_prompt_share"] == 0.0
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


def plain_gain(objective: str, logprobs: torch.Tensor, fixed: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    """Of each token, its off-policy weight in it: [C], or one for the whole sequence."""
    behaviour = torch.from_numpy(sequence.behaviour)
    if objective == "cispo":
        ratio = (logprobs - behaviour).exp().detach()
        return ratio.clamp(0.8, 1.28) * sequence.advantage * logprobs
    moved, mismatch = logprobs - fixed, fixed - behaviour
    if objective == "gspo":
        moved, mismatch = moved.mean(), mismatch.mean()
    held = torch.minimum(moved.exp() * sequence.advantage, moved.exp().clamp(0.8, 1.28) * sequence.advantage)
    return mismatch.exp().clamp(max=2.0) * held.expand_as(logprobs)


def plain_mini_steps(folder: Path, batch: list[Sequence], lr: float, objective: str) -> dict[str, torch.Tensor]:
    """Plain torch: pi_prox once, at the start; then four optimizer steps on a quarter of the batch each."""
    model, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, foreach=False)
    proximal = [slow_logprobs(model, sequence).detach() for sequence in batch]
    for start in range(0, len(batch), len(batch) // 4):
        quarter = list(zip(batch, proximal, strict=True))[start : start + len(batch) // 4]
        for sequence, fixed in quarter:
            logprobs, every = slow_logprobs(model, sequence), slow_distributions(model, sequence)
            gain = plain_gain(objective, logprobs, fixed, sequence) + 0.5 * -(every.exp() * every).sum(-1)
            kl = 0.1 * (logprobs - slow_logprobs(reference, sequence).detach()).square() / 2
            ((kl - gain).sum() / sum(len(s.completion_ids) for s, _ in quarter)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("objective", "stage"), [("ppo", 1), ("cispo", 0), ("gspo", 2), ("ppo", 3)])
def test_mini_steps_of_every_objective_equal_plain_torch(model_folder: Path, objective: Objective, stage: int) -> None:
    """Proximal policy and reference are those of the batch's start, whatever the steps between have changed."""
    loss = LossOptions(
        objective=objective,
        correction="none" if objective == "cispo" else "tis",
        kl_coefficient=0.1,
        entropy_coefficient=0.5,
    )
    policy = Policy(
        model_folder,
        PolicyOptions(lr=3e-3, zero_stage=stage, mini_steps=4, micro_batch_tokens=150, loss=loss),  # type: ignore[arg-type]
    )
    result = policy.step(sequences(), TEMPERATURE)
    expected = plain_mini_steps(model_folder, sequences(), 3e-3, objective)
    ours = weights(policy)
    differences = torch.cat([(ours[name] - expected[name]).abs().flatten() for name in ours])
    assert differences.mean() < 2e-6
    assert differences.quantile(0.999) < 5e-5
    assert result.applied == 4
    assert result.metrics["kl_reference"] == pytest.approx(result.metrics["kl_proximal"], rel=0.5)


def test_the_entropy_is_that_of_the_whole_distribution(model_folder: Path) -> None:
    """H = -sum_v p_v log p_v at each token, in plain Python."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    batch = sequences(4)
    rows = [row for sequence in batch for row in slow_distributions(model, sequence).tolist()]
    entropies = [-math.fsum(math.exp(log_p) * log_p for log_p in row) for row in rows]
    metrics = Policy(model_folder, PolicyOptions()).step(batch, TEMPERATURE).metrics
    assert metrics["entropy"] == pytest.approx(math.fsum(entropies) / len(entropies), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_policy_that_the_run_began_with(model_folder: Path, dtype: str) -> None:
    options = PolicyOptions(lr=1e-2, dtype=dtype, loss=LossOptions(kl_coefficient=0.1))  # type: ignore[arg-type]
    policy = Policy(model_folder, options)
    assert policy.step(sequences(), TEMPERATURE).metrics["kl_reference"] == 0.0
    assert policy.step(sequences(), TEMPERATURE).metrics["kl_reference"] > 1e-4  # type: ignore[operator]
    assert policy.reference is not None
    own = AutoModelForCausalLM.from_pretrained(model_folder, dtype=getattr(torch, dtype)).state_dict()
    held = policy.reference.model.state_dict()
    assert all(torch.equal(held[name], weight) for name, weight in own.items())
    assert not any(parameter.requires_grad for parameter in policy.reference.parameters())


def test_without_a_coefficient_no_reference_is_loaded(model_folder: Path) -> None:
    policy = Policy(model_folder, PolicyOptions())
    assert policy.reference is None
    assert "kl_reference" not in policy.step(sequences(), TEMPERATURE).metrics


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


def test_a_log_probability_that_is_nan_is_never_trained_on(model_folder: Path) -> None:
    """Of the sampler, even where nothing corrects for it; its metrics are left out, those of the others stay."""
    policy = Policy(model_folder, PolicyOptions(loss=LossOptions(correction="none"), micro_batch_tokens=150))
    before = weights(policy)
    bad = sequences()
    bad[3].behaviour[0] = np.nan
    result = policy.step(bad, TEMPERATURE)
    assert (result.applied, result.skipped) == (0, 1)
    assert all(torch.equal(before[name], weight) for name, weight in weights(policy).items())
    assert "loss" not in result.metrics and "kl_behaviour" not in result.metrics
    assert result.metrics["ratio_mean"] == 1.0


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


def test_the_learning_rate_falls_to_the_end_of_the_run(model_folder: Path) -> None:
    policy = Policy(model_folder, PolicyOptions(lr=4e-4, lr_schedule="linear", total_steps=4))
    rates = [policy.step(sequences(4), TEMPERATURE).metrics["lr"] for _ in range(5)]
    assert rates == pytest.approx([4e-4, 3e-4, 2e-4, 1e-4, 0.0])


@pytest.mark.parametrize("stage", [0, 2])
def test_matrices_decay_and_gains_do_not(model_folder: Path, stage: int) -> None:
    policy = Policy(model_folder, PolicyOptions(lr=1e-2, weight_decay=0.5, zero_stage=stage))  # type: ignore[arg-type]
    before = weights(policy)
    still = [replace(sequence, advantage=0.0) for sequence in sequences(4)]  # no gradient: what moves has decayed
    policy.step(still, TEMPERATURE)
    for name, weight in weights(policy).items():
        kept = 1.0 - 1e-2 * 0.5 if weight.dim() >= 2 else 1.0
        assert torch.allclose(weight, before[name] * kept, rtol=1e-6), name


def test_bfloat16_weights_have_float32_masters(model_folder: Path) -> None:
    """A step of 1e-5 is lost on a bfloat16 weight near 1; a hundred of them must not be."""
    policy = Policy(model_folder, PolicyOptions(lr=1e-4, dtype="bfloat16"))
    before = weights(policy)["model.norm.weight"]
    one = policy.step(sequences(4), TEMPERATURE)
    assert one.applied == 1 and torch.equal(weights(policy)["model.norm.weight"], before)
    for _ in range(60):
        policy.step(sequences(4), TEMPERATURE)
    assert not torch.equal(weights(policy)["model.norm.weight"], before)


@pytest.mark.parametrize("stage", [1, 3])
def test_adapters_are_trained_alone_and_published_within_the_weights(
    model_folder: Path, tmp_path: Path, stage: int
) -> None:
    options = PolicyOptions(lr=1e-2, zero_stage=stage, lora_rank=4, lora_alpha=8.0)  # type: ignore[arg-type]
    policy = Policy(model_folder, options)
    plain = Policy(model_folder, PolicyOptions(zero_stage=stage))  # type: ignore[arg-type]
    start = weights(plain)
    assert weights(policy).keys() == start.keys()
    assert all(torch.equal(weight, start[name]) for name, weight in weights(policy).items())  # B = 0
    for _ in range(2):
        policy.step(sequences(), TEMPERATURE)

    moved = {name for name, weight in weights(policy).items() if not torch.equal(weight, start[name])}
    assert moved == {name for name in start if name.endswith("_proj.weight")}
    policy.export(tmp_path / "out")
    adapted = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model_folder), tmp_path / "out" / "adapter"
    )
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    batch = sequences(4)
    for sequence, logprobs in zip(batch, policy.logprobs(batch, TEMPERATURE), strict=True):
        for model in (exported, adapted):
            assert logprobs == pytest.approx(slow_logprobs(model, sequence).detach().numpy(), abs=1e-5)
    policy.save(tmp_path / "state")
    again = Policy(model_folder, options)
    again.load(tmp_path / "state")
    for trained in (policy, again):
        trained.step(sequences(seed=1), TEMPERATURE)
    assert all(torch.equal(weight, weights(again)[name]) for name, weight in weights(policy).items())


@pytest.mark.parametrize(("stage", "checkpointing"), [(1, False), (1, True), (3, False)])
def test_the_reference_of_adapters_is_the_policy_without_them(
    model_folder: Path, stage: int, checkpointing: bool
) -> None:
    options = PolicyOptions(
        lr=1e-2,
        zero_stage=stage,  # type: ignore[arg-type]
        lora_rank=4,
        lora_alpha=8.0,
        gradient_checkpointing=checkpointing,
        loss=LossOptions(kl_coefficient=0.1),
        micro_batch_tokens=150,
    )
    policy = Policy(model_folder, options)
    assert policy.reference is None
    assert policy.step(sequences(), TEMPERATURE).metrics["kl_reference"] == 0.0
    moved = np.concatenate(policy.logprobs(sequences(), TEMPERATURE))
    fixed = np.concatenate(Policy(model_folder, PolicyOptions()).logprobs(sequences(), TEMPERATURE))
    result = policy.step(sequences(), TEMPERATURE)
    expected = np.mean([math.exp(ref - pi) - 1 - (ref - pi) for pi, ref in zip(moved, fixed, strict=True)])
    assert result.metrics["kl_reference"] == pytest.approx(expected, rel=1e-3)
    assert result.applied == 1
    assert np.concatenate(policy.logprobs(sequences(), TEMPERATURE)) != pytest.approx(moved, abs=1e-3)


def test_an_adapter_for_layers_that_are_not_there_is_refused(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"learner.lora_targets = \['nope'\]"):
        Policy(model_folder, PolicyOptions(lora_rank=4, lora_targets=("nope",)))


def after_a_step(
    model_folder: Path, batch: list[Sequence] | None = None, micro_batch_tokens: int = 150, **options: Any
) -> dict[str, torch.Tensor]:
    """Weights less their gradients: as long as those is a step of Adam whose eps is as large as its learning rate."""
    return gradient_step(model_folder, batch or sequences(), micro_batch_tokens, **options)[0]


def gradient_step(
    model_folder: Path, batch: list[Sequence], micro_batch_tokens: int, **options: Any
) -> tuple[dict[str, torch.Tensor], StepResult]:
    chosen = PolicyOptions(lr=1e8, micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e6, **options)
    policy = Policy(model_folder, chosen)
    for group in policy._engine.optimizer.param_groups:
        group["eps"] = 1e8
    result = policy.step(batch, TEMPERATURE)
    return weights(policy), result


def groups() -> list[Sequence]:
    """Uneven completions, some of one token, prompts of one token, and a prompt that two groups have, in turns."""
    generator = np.random.default_rng(5)
    shape = {14: [29, 1, 4, 17, 22, 9, 30, 13], 1: [1, 1, 8, 25], 9: [3], 20: [1, 1, 2], 31: [12, 6]}
    found = []
    for tokens, completions in shape.items():
        prompt = generator.integers(0, VOCABULARY, tokens)
        for length in completions:
            behaviour = generator.normal(-np.log(VOCABULARY), 0.3, length).astype(np.float32)
            completion = generator.integers(0, VOCABULARY, length)
            found.append(Sequence(prompt.copy(), completion, behaviour, float(generator.normal())))
    return [found[place] for place in generator.permutation(len(found))]


@pytest.mark.parametrize(
    ("stage", "loss"),
    [
        (0, LossOptions(kl_coefficient=0.1, entropy_coefficient=0.5)),
        (1, LossOptions(objective="gspo", sequence_mask="geometric", mask_low=0.7, mask_high=1.3)),
        (2, LossOptions(objective="cispo", correction="none")),
        (3, LossOptions(correction="icepop", kl_coefficient=0.1)),
    ],
    ids=["ppo", "gspo", "cispo", "icepop"],
)
@pytest.mark.parametrize("tokens", [10_000, 120, 60])
def test_shared_prompts_change_no_gradient_and_no_metric(
    model_folder: Path, stage: int, loss: LossOptions, tokens: int
) -> None:
    """Against rows of their own, one to a micro-batch. Of 120 tokens and less, groups are split."""
    theirs, alone = gradient_step(model_folder, groups(), 1, packing="off", zero_stage=stage, loss=loss)
    ours, shared = gradient_step(model_folder, groups(), tokens, zero_stage=stage, loss=loss)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=0)
    widths = sum(sequence.width for sequence in groups())
    once = sum({bytes(s.prompt): len(s.prompt_ids) for s in groups()}.values())
    least = 1 - (once + sum(len(s.completion_ids) - 1 for s in groups())) / widths
    share = shared.metrics.pop("shared_prompt_share")
    assert share == pytest.approx(least) if tokens == 10_000 else 0.1 < share < least
    assert alone.metrics.pop("shared_prompt_share") == 0.0
    for changed in ("micro_batches", "padding_share", "attention_padding_share"):
        del shared.metrics[changed], alone.metrics[changed]
    assert shared.metrics.pop("ratio_histogram") == alone.metrics.pop("ratio_histogram")
    assert shared.metrics == pytest.approx(alone.metrics, rel=1e-5, abs=1e-6)


def test_the_entropy_bonus_is_the_gradient_of_the_entropy(model_folder: Path) -> None:
    without = after_a_step(model_folder)
    bonus = after_a_step(model_folder, loss=LossOptions(entropy_coefficient=0.5))
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    entropies = []
    for sequence in sequences():
        ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids]))
        logits = model(input_ids=ids[None]).logits[0, len(sequence.prompt_ids) - 1 : -1]
        entropies.append(torch.distributions.Categorical(logits=logits / TEMPERATURE).entropy())
    mean = torch.cat(entropies).mean()
    (0.5 * mean).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(bonus[name] - without[name], parameter.grad, atol=1e-5, rtol=0)
    result = Policy(model_folder, PolicyOptions(micro_batch_tokens=150)).step(sequences(), TEMPERATURE)
    assert result.metrics["entropy"] == pytest.approx(mean.item(), rel=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_neither_chunks_nor_checkpointing_change_a_gradient(
    model_folder: Path, stage: int, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = after_a_step(model_folder)
    rows = partial(CompletionLogprobs, logits=20 * VOCABULARY)  # up to eight chunks of a micro-batch
    monkeypatch.setattr("learner.policy.CompletionLogprobs", rows)
    ours = after_a_step(model_folder, zero_stage=stage, gradient_checkpointing=checkpointing)
    assert ours.keys() == expected.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("packing", ["auto", "off"])
def test_empty_micro_batches_contribute_nothing(
    model_folder: Path, stage: int, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = after_a_step(model_folder, zero_stage=stage, packing=packing)

    def more(*given: Any, packed: bool) -> list[MicroBatch]:
        batches = micro_batches(*given, packed=packed)
        return filled_up(batches, len(batches) + 2, packed=packed)

    monkeypatch.setattr("learner.policy.micro_batches", more)
    ours = after_a_step(model_folder, zero_stage=stage, packing=packing)
    for name in ours:
        assert torch.equal(ours[name], expected[name]), name


def test_a_sequence_beyond_the_budget_is_said_once(model_folder: Path) -> None:
    policy = Policy(model_folder, PolicyOptions(micro_batch_tokens=30))
    with capture_logs() as logs:
        for _ in range(2):
            result = policy.step(sequences(), TEMPERATURE)
    said = [entry for entry in logs if "longer than the budget" in entry["event"]]
    assert [(entry["tokens"], entry["micro_batch_tokens"]) for entry in said] == [
        (max(sequence.width for sequence in sequences()), 30)
    ]
    assert result.applied == 1


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
        attn_logit_softcapping=0.05,
        initializer_range=0.2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
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
