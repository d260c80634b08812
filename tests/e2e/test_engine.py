"""The sampler against transformers: what it says it sampled, from which weights, before and after an update."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.cpu_linear import padded_rows
from actors.engine import Engine, EngineOptions, Sampled
from common.errors import ModelError, WeightsError
from tests.e2e.conftest import save_tiny_model

PROMPT = [10, 20, 30, 40, 50]
LONG_PROMPT = [3 + position % 200 for position in range(140)]  # fills blocks of the prefix cache (32 tokens on a CPU)
CLOSE = 1e-3  # absolute, in nats; float32 kernels differ by about 1e-5
EOS, END_OF_TURN = 1, 2


def options(model: Path) -> EngineOptions:
    return EngineOptions(model=str(model), max_model_len=256, max_num_seqs=64, kv_cache_gib=0.1)


@pytest.fixture(scope="module")
def shared_engine(tiny_model: Path) -> Iterator[Engine]:
    engine = Engine(options(tiny_model), version=0)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: Engine, tiny_model: Path) -> Engine:
    """The engine at version 0, idle, whatever the test before did."""
    finish(shared_engine)
    shared_engine.load(tiny_model, version=0)
    return shared_engine


def finish(engine: Engine) -> list[Sampled]:
    done: list[Sampled] = []
    for _ in range(1000):
        if not engine.busy:
            return sorted(done, key=lambda sampled: (sampled.request_id, sampled.index))
        done += engine.step()
    raise AssertionError("the engine did not finish within 1000 steps")


def expected_logprobs(model: Path, token_ids: list[int], temperature: float = 1.0) -> np.ndarray:
    """float32 [len - 1]: the slow way, one full forward of transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        logits = policy(torch.tensor([token_ids])).logits[0, :-1] / temperature
    chosen = torch.tensor(token_ids[1:])[:, None]
    return np.asarray(logits.log_softmax(-1).gather(1, chosen)[:, 0])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_are_the_models(engine: Engine, tiny_model: Path, temperature: float) -> None:
    engine.add("a", PROMPT, n=4, temperature=temperature, max_tokens=20)
    engine.add("b", PROMPT[:2], n=2, temperature=temperature, max_tokens=7)

    done = finish(engine)

    assert [(s.request_id, s.index) for s in done] == [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 0), ("b", 1)]
    assert len({tuple(s.token_ids) for s in done}) == 6
    for sampled in done:
        prompt = PROMPT if sampled.request_id == "a" else PROMPT[:2]
        expected = expected_logprobs(tiny_model, prompt + sampled.token_ids, temperature)
        np.testing.assert_allclose(sampled.logprobs, expected[len(prompt) - 1 :], atol=CLOSE, rtol=0)
        assert sampled.versions == [(len(sampled.token_ids), 0)]
        assert sampled.seconds > 0


def test_a_completion_ends_with_its_eos_and_keeps_it(engine: Engine, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    for batch in range(4):
        engine.add(f"r{batch}", PROMPT, n=64, temperature=1.5, max_tokens=100)

    done = finish(engine)

    stopped = [s for s in done if s.finish_reason == "stop"]
    assert {s.token_ids[-1] for s in stopped} == {EOS, END_OF_TURN}  # the tokenizer's and generation_config's
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for sampled in done:
        assert len(sampled.logprobs) == len(sampled.token_ids)
        assert not {EOS, END_OF_TURN} & set(sampled.token_ids[:-1])
        assert sampled.text == tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
        if sampled.finish_reason == "length":
            assert len(sampled.token_ids) == 100


def test_an_update_in_flight_splits_each_completion_exactly(
    engine: Engine, tiny_model: Path, other_tiny_model: Path
) -> None:
    engine.add("early", LONG_PROMPT, n=6, temperature=1.0, max_tokens=40)
    done = [sampled for _ in range(10) for sampled in engine.step()]
    engine.add("waiting", PROMPT, n=2, temperature=1.0, max_tokens=15)

    engine.load(other_tiny_model, version=1)
    engine.add("late", LONG_PROMPT, n=2, temperature=1.0, max_tokens=3)
    done += [sampled for _ in range(5) for sampled in engine.step()]
    engine.load(tiny_model, version=2)
    done += finish(engine)

    assert len(done) == 10
    assert any(len(s.versions) == 3 for s in done)
    folders = {0: tiny_model, 1: other_tiny_model, 2: tiny_model}
    possible = {"early": [0, 1, 2], "waiting": [1, 2], "late": [1]}
    for sampled in done:
        prompt = PROMPT if sampled.request_id == "waiting" else LONG_PROMPT
        assert sum(tokens for tokens, _ in sampled.versions) == len(sampled.token_ids)
        assert [version for _, version in sampled.versions] == possible[sampled.request_id][: len(sampled.versions)]
        if len(sampled.versions) == 3:
            assert sampled.versions[:2] == [(10, 0), (5, 1)]
        start = 0
        for tokens, version in sampled.versions:
            expected = expected_logprobs(folders[version], prompt + sampled.token_ids)[len(prompt) - 1 :]
            stretch = slice(start, start + tokens)
            np.testing.assert_allclose(sampled.logprobs[stretch], expected[stretch], atol=CLOSE, rtol=0)
            start += tokens


def test_scores_follow_the_new_weights_while_requests_run(
    engine: Engine, tiny_model: Path, other_tiny_model: Path
) -> None:
    sequences = [LONG_PROMPT, PROMPT, [7, 7]]
    before = engine.prompt_logprobs(sequences)  # also fills the prefix cache with the old policy
    engine.add("full", PROMPT, n=80, temperature=1.0, max_tokens=12)  # more than max_num_seqs
    done = [sampled for _ in range(3) for sampled in engine.step()]

    engine.load(other_tiny_model, version=1)
    after = engine.prompt_logprobs(sequences)
    done += [sampled for _ in range(3) for sampled in engine.step()]
    again = engine.prompt_logprobs(sequences)

    for model, scores in ((tiny_model, before), (other_tiny_model, after), (other_tiny_model, again)):
        for sequence, score in zip(sequences, scores, strict=True):
            assert score.dtype == np.float32
            np.testing.assert_allclose(score, expected_logprobs(model, sequence), atol=CLOSE, rtol=0)
    done += finish(engine)
    assert sorted(s.index for s in done) == list(range(80))


def test_completions_that_end_during_scoring_are_not_lost(engine: Engine) -> None:
    engine.add("short", PROMPT, n=3, temperature=1.0, max_tokens=1)

    engine.prompt_logprobs([PROMPT])

    assert engine.busy
    assert sorted(sampled.index for sampled in engine.step()) == [0, 1, 2]
    assert not engine.busy


def test_aborted_requests_bring_nothing(engine: Engine) -> None:
    engine.add("keep", PROMPT, n=2, temperature=1.0, max_tokens=5)
    engine.add("drop", PROMPT, n=2, temperature=1.0, max_tokens=50)
    engine.step()

    engine.abort(["drop", "never seen"])

    assert {sampled.request_id for sampled in finish(engine)} == {"keep"}
    engine.add("drop", PROMPT, n=1, temperature=1.0, max_tokens=2)  # the id is free again
    assert len(finish(engine)) == 1


def test_a_group_computes_the_full_blocks_of_its_prompt_once(
    engine: Engine, tiny_model: Path, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = _count_computed(engine, monkeypatch)
    prompt = LONG_PROMPT[:72]  # two blocks and 8 tokens

    engine.add("group", prompt, n=8, temperature=1.0, max_tokens=12)
    done = engine.step()
    assert computed.pop() == 72 + 7 * 8
    done += [sampled for _ in range(4) for sampled in engine.step()]
    unfinished = {f"group/{i}" for i in range(8)} - {f"{s.request_id}/{s.index}" for s in done}
    engine.load(other_tiny_model, version=1)
    computed.clear()
    done += engine.step()
    assert computed == [64 + len(unfinished) * (8 + 5)]  # 5 tokens were sampled, and the blocks are computed anew
    done += finish(engine)

    for sampled in done:
        tokens = len(sampled.token_ids)
        assert sampled.versions == ([(5, 0), (tokens - 5, 1)] if tokens > 5 else [(tokens, 0)])
        old, new = (
            expected_logprobs(model, prompt + sampled.token_ids)[len(prompt) - 1 :]
            for model in (tiny_model, other_tiny_model)
        )
        np.testing.assert_allclose(sampled.logprobs[:5], old[:5], atol=CLOSE, rtol=0)
        np.testing.assert_allclose(sampled.logprobs[5:], new[5:], atol=CLOSE, rtol=0)


def _count_computed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the number of tokens whose keys and values each step from now on computes."""
    executor = engine._vllm._core.model_executor
    execute = executor.execute_model
    computed: list[int] = []

    def counting(scheduled: Any, *args: Any, **named: Any) -> Any:
        computed.append(scheduled.total_num_scheduled_tokens)
        return execute(scheduled, *args, **named)

    monkeypatch.setattr(executor, "execute_model", counting)
    return computed


def test_long_completions_get_blocks_where_they_need_them(
    engine: Engine, tiny_model: Path, other_tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = engine._vllm._core
    coordinator = core.scheduler.kv_cache_manager.coordinator
    allocate, asked = coordinator.allocate_new_blocks, []
    monkeypatch.setattr(coordinator, "allocate_new_blocks", lambda *a: (asked.append(a), allocate(*a))[1])
    for length in (1, 30, 31, 32, 33):
        engine.add(f"{length}", LONG_PROMPT[:length], n=12, temperature=0.8, max_tokens=110)

    done = [sampled for _ in range(50) for sampled in engine.step()]
    engine.load(other_tiny_model, version=1)
    done += finish(engine)

    tokens = sum(len(sampled.token_ids) for sampled in done)
    assert max(len(sampled.token_ids) for sampled in done) > 70
    assert len(asked) < tokens / 5  # a block's first and last token, a prompt, what the update put back
    for sampled in sorted(done, key=lambda sampled: -len(sampled.token_ids))[:12]:
        ids = LONG_PROMPT[: int(sampled.request_id)] + sampled.token_ids
        first = len(ids) - len(sampled.token_ids) - 1
        start = 0
        for count, version in sampled.versions:
            expected = expected_logprobs(other_tiny_model if version else tiny_model, ids, temperature=0.8)[first:]
            stretch = slice(start, start + count)
            np.testing.assert_allclose(sampled.logprobs[stretch], expected[stretch], atol=CLOSE, rtol=0)
            start += count
    assert core.scheduler.kv_cache_manager.block_pool.get_usage() == 0


def test_small_layers_meet_few_batch_sizes(engine: Engine, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import _custom_ops

    multiply = _custom_ops.onednn_mm
    met: set[int] = set()

    def recording(handler: Any, x: Any, bias: Any) -> Any:
        met.add(len(x))
        return multiply(handler, x, bias)

    monkeypatch.setattr(_custom_ops, "onednn_mm", recording)
    for n in (1, 6, 17, 20):  # up to 44 sequences, one fewer at a time
        engine.add(f"{n}", LONG_PROMPT[: 3 * n], n=n, temperature=1.0, max_tokens=n)
    done = finish(engine)
    engine.add("long", LONG_PROMPT, n=5, temperature=1.0, max_tokens=1)
    done += finish(engine)

    assert {32, 64} < met <= {padded_rows(rows) for rows in range(1, 2049)}
    for sampled in done[::10]:
        prompt = LONG_PROMPT[: 3 * int(sampled.request_id)] if sampled.request_id != "long" else LONG_PROMPT
        expected = expected_logprobs(tiny_model, prompt + sampled.token_ids)
        np.testing.assert_allclose(sampled.logprobs, expected[len(prompt) - 1 :], atol=CLOSE, rtol=0)


def test_greedy_completions_are_those_of_vllms_own_engine(engine: Engine) -> None:
    from vllm import SamplingParams

    prompts = {f"{length}": LONG_PROMPT[:length] for length in (1, 5, 31, 32, 33, 64, 100, 140)}
    for key, prompt in prompts.items():
        engine.add(key, prompt, n=2, temperature=0.0, max_tokens=30)
    ours = finish(engine)
    theirs = {}
    llm = engine._vllm._llm
    params = SamplingParams(temperature=0.0, max_tokens=30, logprobs=0, flat_logprobs=True)
    for key, prompt in prompts.items():
        llm.add_request(key, {"type": "token", "prompt_token_ids": prompt}, params)
    while llm.has_unfinished_requests():
        theirs |= {output.request_id: output.outputs[0] for output in llm.step() if output.finished}

    assert len(ours) == 2 * len(theirs) == 16
    for sampled in ours:
        other = theirs[sampled.request_id]
        assert sampled.token_ids == list(other.token_ids)
        assert sampled.finish_reason == other.finish_reason
        np.testing.assert_allclose(sampled.logprobs, list(other.logprobs.logprobs), atol=1e-4, rtol=0)


def test_aborted_and_finished_requests_leave_nothing_behind(engine: Engine) -> None:
    engine.add("a", PROMPT, n=3, temperature=1.0, max_tokens=50)
    engine.add("b", PROMPT, n=2, temperature=1.0, max_tokens=50)
    done = [sampled for sampled in engine.step() if sampled.request_id == "b"]
    engine.abort(["a"])
    engine.add("a", PROMPT, n=3, temperature=1.0, max_tokens=4)  # before vLLM's next step clears the aborted one

    done = sorted(done + finish(engine), key=lambda sampled: sampled.index)

    assert {key: [s.index for s in done if s.request_id == key] for key in "ab"} == {"a": [0, 1, 2], "b": [0, 1]}
    assert all(len(sampled.token_ids) <= 4 for sampled in done if sampled.request_id == "a")
    assert engine._vllm._running == {}
    core = engine._vllm._core
    assert core.scheduler.requests == {}
    assert core.scheduler.kv_cache_manager.block_pool.get_usage() == 0
    engine.prompt_logprobs([PROMPT])  # the next step tells the runner
    assert len(core.model_executor.driver_worker.worker.model_runner.requests) <= 1


def test_foreign_weights_are_refused_and_change_nothing(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(tiny_model / "model.safetensors")
    norm = "model.norm.weight"
    cases = {
        "unknown: model.extra.weight": {**tensors, "model.extra.weight": tensors[norm]},
        f"missing: {norm}": {name: value for name, value in tensors.items() if name != norm},
        f"{norm} \\[63\\] instead of \\[64\\]": {**tensors, norm: tensors[norm][:63].copy()},
    }
    before = engine.prompt_logprobs([PROMPT])[0]
    for message, wrong in cases.items():
        save_file(wrong, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=message):
            engine.load(tmp_path, version=1)
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        engine.load(tmp_path, version=1)
    with pytest.raises(WeightsError, match="version 9 was announced but"):
        engine.load(tmp_path / "nowhere", version=9)

    np.testing.assert_array_equal(engine.prompt_logprobs([PROMPT])[0], before)


def test_adapters_are_added_to_the_weights_that_they_belong_to(
    engine: Engine, tiny_model: Path, other_tiny_model: Path, tmp_path: Path
) -> None:
    """A policy that trains adapters publishes these alone; the rest is what it began with."""
    import torch
    from safetensors.torch import load_file, save_file

    from actors.weight_load import adapter_names

    torch.manual_seed(0)
    weights, adapters = load_file(other_tiny_model / "model.safetensors"), {}
    for name in [name for name in weights if name.endswith(("q_proj.weight", "down_proj.weight"))]:
        out, wide = weights[name].shape
        first, second = adapter_names(name)
        adapters |= {first: torch.randn(4, wide) / 8, second: torch.randn(out, 4) / 8}
        weights[name] += 2.0 * adapters[second] @ adapters[first]
    shutil.copytree(tiny_model, tmp_path / "merged")
    save_file(weights, tmp_path / "merged" / "model.safetensors", metadata={"format": "pt"})
    save_file(adapters, tmp_path / "adapters.safetensors")
    plain = expected_logprobs(other_tiny_model, PROMPT)

    engine.load(other_tiny_model, 1, tmp_path / "adapters.safetensors", 2.0)

    expected = expected_logprobs(tmp_path / "merged", PROMPT)
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(engine.prompt_logprobs([PROMPT])[0], expected, atol=CLOSE, rtol=0)
    # And adapters of something else are refused before anything has changed
    save_file({f"{name}.x": value for name, value in adapters.items()}, tmp_path / "adapters.safetensors")
    with pytest.raises(WeightsError, match="adapters of nothing here"):
        engine.load(tiny_model, 2, tmp_path / "adapters.safetensors", 2.0)
    np.testing.assert_allclose(engine.prompt_logprobs([PROMPT])[0], expected, atol=CLOSE, rtol=0)


def test_a_written_output_head_of_a_tied_model_is_accepted(
    engine: Engine, other_tiny_model: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(other_tiny_model / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].copy()}, tmp_path / "one.safetensors")

    engine.load(tmp_path, version=1)

    np.testing.assert_allclose(
        engine.prompt_logprobs([PROMPT])[0], expected_logprobs(other_tiny_model, PROMPT), atol=CLOSE, rtol=0
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "0 tokens"), ([5] * 256, "256 tokens where 1 to 255 fit"), ([5, 264], "vocabulary of 264"), ([-1], "-1 to")],
)
def test_a_prompt_that_would_end_the_engine_is_refused(engine: Engine, prompt: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.add("bad", prompt, n=1, temperature=1.0, max_tokens=1)
    assert not engine.busy


def test_two_requests_need_two_ids(engine: Engine) -> None:
    engine.add("same", PROMPT, n=2, temperature=1.0, max_tokens=3)
    with pytest.raises(ValueError, match="still running"):
        engine.add("same", PROMPT, n=1, temperature=1.0, max_tokens=3)
    assert len(finish(engine)) == 2


# The tests below make engines of their own, which ends the shared one: they stay last.


def test_models_that_cannot_be_served_say_so(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model folder"):
        Engine(options(tmp_path / "absent"), version=0)

    thin = save_tiny_model(tmp_path / "thin", seed=0, head_dim=16)
    with pytest.raises(ModelError, match="thin"):
        Engine(options(thin), version=0)

    grown = tmp_path / "grown"
    shutil.copytree(tiny_model, grown)
    tokenizer = json.loads((grown / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["far"] = 300
    (grown / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="token id 300, but the model only 264 embeddings"):
        Engine(options(grown), version=0)


def test_an_engine_that_failed_in_the_middle_of_a_load_samples_no_more(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(options(tiny_model), version=0)
    engine.add("a", PROMPT, n=1, temperature=1.0, max_tokens=5)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._vllm, "load", fail)
    with pytest.raises(WeightsError, match=r"out of memory\) and may hold a mixture"):
        engine.load(tiny_model, version=1)
    with pytest.raises(WeightsError, match="restart this actor"):
        engine.step()
    engine.close()
    engine.close()
