"""The arithmetic of the predictions by hand, and the division of devices by trying all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learner import footprint
from learner.flops import Shape
from tests.bench.simulate import cost
from tests.bench.simulate.__main__ import main
from tests.bench.simulate.cost import Assumptions, Job
from tests.bench.simulate.inputs import Plant, Times, Work
from tests.bench.simulate.known import DEVICES, MODELS
from tests.bench.simulate.run import simulate
from tests.bench.simulate.split import Devices, cells, growing, search, stage_seconds

GIVEN = Assumptions()


def test_the_models_have_the_sizes_that_their_authors_state() -> None:
    assert MODELS["Qwen3-4B"].parameters == pytest.approx(4.0e9, rel=0.01)
    assert MODELS["Qwen3-32B"].parameters == pytest.approx(32.8e9, rel=0.002)
    # Without an output layer: a reward model's is one row.
    rm = MODELS["AceMath-7B-RM"]
    assert rm.parameters - rm.head_weights == pytest.approx(7.07e9, rel=0.01)
    assert {name: device.flops_s for name, device in DEVICES.items()} == {"H200": 989e12, "H100": 989e12}


SMALL = Shape(layers=2, hidden=8, heads=4, kv_heads=2, head_dim=4, intermediate=16, vocabulary=10, tied=False)
WEIGHTS = 2 * (8 * 16 + 2 * 8 * 8 + 16 * 8 + 3 * 8 * 16) + 2 * 8 * 10


@pytest.mark.parametrize(
    ("stage", "bytes_a_weight"),
    [
        (0, 2 + 4 + 12),
        (1, 2 + 4 + 12 / 4),
        (2, 2 + (4 + 12) / 4),
        (3, (2 + 4 + 12) / 4),
    ],
)
def test_zero_divides_what_it_says_over_four_ranks(stage: int, bytes_a_weight: float) -> None:
    parts = footprint.training_bytes(SMALL, stage, ranks=4, tokens=100)
    assert SMALL.parameters == WEIGHTS
    assert parts["weights"] + parts["gradients"] + parts["optimizer"] == pytest.approx(bytes_a_weight * WEIGHTS)


def test_float32_has_a_master_copy_from_stage_1_on() -> None:
    plain, first = (footprint.training_bytes(SMALL, stage, 1, 100, element=4) for stage in (0, 1))
    assert (plain["optimizer"], first["optimizer"]) == (8 * WEIGHTS, 12 * WEIGHTS)


def test_checkpointing_keeps_the_input_of_each_layer_and_all_of_one() -> None:
    every, one = (footprint.training_bytes(SMALL, 0, 1, 100, checkpointing=kept) for kept in (False, True))
    assert one["activations"] == 2 * 8 * 100 * 2 + every["activations"] / 2


def test_a_cache_holds_a_key_and_a_value_for_each_head_and_layer() -> None:
    assert footprint.kv_bytes(SMALL) == sum(2 * 4 for _layer in range(2) for _head in range(2) for _kv in ("k", "v"))
    job = Job()
    fits = cost.sequences_that_fit(job, 1, GIVEN)
    used = fits * job.context * 147_456 + 2 * job.shape.parameters + cost.ENGINE_OVERHEAD_BYTES
    assert used == pytest.approx(0.9 * 141e9, rel=0.01)


def test_what_does_not_fit_gets_more_devices() -> None:
    large, on_h100 = Job(policy="Qwen3-32B"), Job(policy="Qwen3-32B", device="H100")
    assert cost.tensor_parallel(large, GIVEN) == 1 and cost.tensor_parallel(on_h100, GIVEN) == 2
    ranks = cost.least_ranks(on_h100, GIVEN)
    assert ranks > cost.least_ranks(large, GIVEN) > cost.least_ranks(Job(), GIVEN)
    assert cost.zero_stage(on_h100, ranks, GIVEN) == 3 and cost.zero_stage(on_h100, ranks - 1, GIVEN) is None
    with pytest.raises(ValueError, match="does not fit"):
        cost.least_ranks(Job(micro_batch_tokens=10**6), GIVEN)


def test_times_of_a_job_by_hand() -> None:
    given = Assumptions(mfu=0.4, prefill_mfu=0.5, mbu=0.6, engine_step_s=0.001, carrier_bytes_s=1e9)
    job = Job(sigma=0.0, mean_tokens=1000, prompt_tokens=100)
    times = cost.predict(job, 2, given)
    p, attention = 4.0223e9, 4 * 36 * 32 * 128
    assert times.decode_step_s == pytest.approx(0.001 + 2 * p / (2 * 4.8e12 * 0.6), rel=1e-3)
    assert times.decode_sequence_s == pytest.approx(2 * p / (2 * 989e12 * 0.5), rel=1e-3)
    assert times.decode_context_s == pytest.approx(147_456 / (2 * 4.8e12 * 0.6))
    assert times.publish_s == times.load_s == pytest.approx(8.0446, rel=1e-3)
    # Four passes: forward, twice backward, and the proximal log-probabilities of four mini-steps. Of 8 x 1,100 tokens
    # 7 prompts do not pass the layers; the output layer has 151,936 x 2,560 of the weights.
    flops = 2 * p + attention * 1100 - 7 * 100 / 8800 * 2 * (p - 151_936 * 2560)
    assert times.train_token_s == pytest.approx(4 * flops / (989e12 * 0.4), rel=1e-3)
    one = cost.predict(replace(job, mini_steps=1), 2, given)
    assert one.train_token_s == pytest.approx(times.train_token_s * 3 / 4)
    assert cost.predict(job, 2, replace(given, mfu=0.2)).train_token_s == pytest.approx(2 * times.train_token_s)
    assert job.context == pytest.approx(100 + 500)


def test_gpu_hours() -> None:
    assert cost.gpu_hours_per_1000_prompts(step_s=90.0, gpus=8, groups_per_step=500) == pytest.approx(0.4)


TIMES = Times(
    decode_step_s=0.01, decode_sequence_s=0.0, decode_context_s=0.0, start_group_s=0.0, load_s=0.0,
    recompute_token_s=0.0, verify_completion_s=0.1, score_batch_s=0.0, score_token_s=0.0, train_step_s=0.0,
    train_token_s=0.004, learner_group_s=0.0, publish_s=0.0, checkpoint_s=0.0,
)  # fmt: skip
WORK = Work(completions=2, prompt_tokens=50, mean_tokens=100)
PLANT = Plant(1, 1, groups_in_flight=4, groups_per_step=8, batch_groups=1, max_staleness=3)


def test_the_work_of_a_step_by_hand() -> None:
    """8 groups of 2 completions of 100 tokens: 4 groups at a time, one second each; 0.2 s and 1.2 s a group."""
    assert stage_seconds(TIMES, WORK, PLANT) == pytest.approx({"actors": 2.0, "scorers": 1.6, "learner": 9.6})
    more = replace(PLANT, actors=2, scorers=4, ranks=3)
    assert stage_seconds(TIMES, WORK, more) == pytest.approx({"actors": 1.0, "scorers": 0.4, "learner": 3.2})


def test_no_plant_is_faster_than_its_longest_stage() -> None:
    for actors, scorers, ranks in ((1, 1, 1), (1, 2, 8), (3, 1, 5), (2, 2, 16)):
        plant = replace(PLANT, actors=actors, scorers=scorers, ranks=ranks)
        found = simulate(TIMES, WORK, plant, steps=60).step_s
        longest = max(stage_seconds(TIMES, WORK, plant).values())
        assert longest <= found * 1.001 and found < 1.5 * longest


def test_divisions_use_up_all_devices() -> None:
    splits = list(Devices(total=9, actor=2, least_ranks=2).splits())
    assert len(splits) == len(set(splits)) and (1, 1, 6) in splits
    assert all(2 * a + s + r == 9 and r >= 2 for a, s, r in splits)


def test_the_best_division_is_the_best_of_all_though_arithmetic_alone_misses_it() -> None:
    """Long completions leave actors half empty, which only the simulation sees: two actors more are worth it."""
    unlike = Work(2, 50, mean_tokens=100, sigma=1.5, max_tokens=2000)
    plant, devices = replace(PLANT, groups_in_flight=1, max_staleness=1), Devices(16)
    best = search(TIMES, unlike, plant, devices, steps=30)[0]
    every = cells(TIMES, unlike, plant, devices, steps=30, most=16)
    assert len(every) == len(list(devices.splits())) == 105
    assert best[1].step_s == min(found.step_s for _, found in every)
    first = min((some for some, _ in every), key=lambda some: max(stage_seconds(TIMES, unlike, some).values()))
    assert best[0].actors - first.actors == 2


def test_an_actor_takes_no_more_than_its_share() -> None:
    """32 tickets are in flight: with 16 actors two each, though four would fit, or half of them had none."""
    assert growing(TIMES, WORK, PLANT, actors=16).groups_in_flight == 2
    assert growing(TIMES, WORK, PLANT, actors=2).groups_in_flight == 4


def test_plants_grow_in_proportion() -> None:
    one, ten = (growing(TIMES, WORK, PLANT, actors) for actors in (1, 10))
    assert (one.scorers, one.ranks) == (1, 5) and (ten.scorers, ten.ranks) == (8, 48)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--steps", "12", "--groups-per-step", "16", "--actors", "2", "--ranks", "4"],
        [
            "scale",
            "--counts",
            "1",
            "2",
            "--steps",
            "9",
            "--groups-per-step",
            "16",
            "--groups-in-flight",
            "4",
            "--out",
            "a.png",
        ],
        ["ratio", "--devices", "7", "--steps", "9", "--groups-per-step", "16", "--out", "a.png"],
    ],
)
def test_the_commands_show_what_they_find(
    arguments: list[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert main([*arguments, "--mean-tokens", "50", "--max-tokens", "200"]) == 0
    shown = capsys.readouterr()
    assert "PREDICTED for Qwen3-4B on H200" in shown.err and "tokens/s" in shown.out


def test_predictions_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cost", "--gpus", "8", "--device", "H100", "--groups-per-step", "16"]
    assert main([*arguments, "--mean-tokens", "50", "--max-tokens", "200"]) == 0
    shown = capsys.readouterr().out
    assert "PREDICTIONS" in shown and "nothing was run on a GPU" in shown
    assert "at least" in shown, "32 B and its optimizer do not fit on eight H100"
