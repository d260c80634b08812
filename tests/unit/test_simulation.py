"""The simulation of the pipeline where the answer is known: closed forms, conservation, and the slow way."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.tickets import capacity
from tests.bench.simulate.actor import Actor, Group
from tests.bench.simulate.events import Clock, Cores
from tests.bench.simulate.inputs import Inputs, Plant, Times, Work, load
from tests.bench.simulate.run import simulate

NOTHING = Times(**dict.fromkeys(Times.__dataclass_fields__, 0.0))
ONE = Plant(actors=1, scorers=1, groups_in_flight=1, batch_groups=1, groups_per_step=1, max_staleness=5)
ALIKE = Work(completions=1, prompt_tokens=5, mean_tokens=100)


def one_by_one(sampling: float, scoring: float, training: float) -> Times:
    """Seconds of a group of one completion in every stage."""
    return replace(NOTHING, decode_step_s=sampling / 100, verify_completion_s=scoring, train_step_s=training)


@pytest.mark.parametrize("stages", [(3.0, 1.0, 2.0), (1.0, 4.0, 2.0), (1.0, 2.0, 2.5)])
def test_the_longest_stage_sets_the_pace(stages: tuple[float, float, float]) -> None:
    found = simulate(one_by_one(*stages), ALIKE, ONE, steps=30)
    assert found.steps == 30
    assert found.step_s == pytest.approx(max(stages))
    shares = [stage / max(stages) for stage in stages]
    assert [found.actors, found.scorers, found.learner] == pytest.approx(shares)
    assert found.tokens_per_s == pytest.approx(105 / max(stages))


def test_with_one_ticket_in_flight_the_stages_follow_each_other() -> None:
    found = simulate(one_by_one(3.0, 1.0, 2.0), ALIKE, replace(ONE, max_staleness=0), steps=30)
    assert found.step_s == pytest.approx(6.0) and found.staleness == {0: 1.0}


@pytest.mark.parametrize(("actors", "step_s"), [(1, 12.0), (2, 6.0), (3, 4.0), (4, 3.0), (5, 3.0)])
def test_more_actors_help_until_the_learner_is_the_longest(actors: int, step_s: float) -> None:
    plant = replace(ONE, actors=actors, max_staleness=9)
    assert simulate(one_by_one(12.0, 1.0, 3.0), ALIKE, plant, steps=300).step_s == pytest.approx(step_s, rel=0.01)


def test_ranks_divide_the_tokens_and_not_what_a_step_takes_in_any_case() -> None:
    times = replace(NOTHING, train_step_s=2.0, train_token_s=0.1)
    found = [simulate(times, ALIKE, replace(ONE, ranks=ranks), steps=30).step_s for ranks in (1, 2, 10)]
    assert found == pytest.approx([2 + 10.5, 2 + 5.25, 2 + 1.05])


def test_what_the_learner_does_beside_a_step_takes_its_time() -> None:
    times = replace(NOTHING, train_step_s=2.0, publish_s=1.0, learner_group_s=0.5, checkpoint_s=4.0)
    plant = replace(ONE, checkpoint_every_steps=2)
    found = simulate(times, ALIKE, plant, steps=12 + 7 + 21)  # 20 steps are steady, ten of them with a checkpoint
    assert found.step_s == pytest.approx(2.0 + 1.0 + 0.5 + 4.0 / 2)


def test_stages_on_one_core_take_their_sum() -> None:
    plant = replace(ONE, shared_cores=1.0)
    assert simulate(one_by_one(1.0, 2.0, 2.5), ALIKE, plant, steps=300).step_s == pytest.approx(4.5, rel=0.01)


@pytest.mark.parametrize("plant", [replace(ONE, actors=0), replace(ONE, scorers=0)])
def test_without_actors_or_scorers_nothing_is_trained(plant: Plant) -> None:
    found = simulate(one_by_one(1.0, 1.0, 1.0), ALIKE, plant, steps=3)
    assert found.steps == 0 and math.isnan(found.step_s) and found.staleness == {}


SOME = Times(
    decode_step_s=0.01, decode_sequence_s=1e-4, decode_context_s=1e-6, start_group_s=0.02, load_s=0.3,
    recompute_token_s=1e-5, verify_completion_s=0.01, score_batch_s=0.05, score_token_s=1e-5, train_step_s=0.5,
    train_token_s=1e-5, learner_group_s=1e-3, publish_s=0.2, checkpoint_s=1.0,
)  # fmt: skip
UNLIKE = Work(completions=4, prompt_tokens=20, mean_tokens=120, sigma=0.8, max_tokens=512)


def test_littles_law() -> None:
    """Tickets in flight = rate x time in flight; exact, as all that are issued come to their end."""
    plant = Plant(actors=3, scorers=2, groups_in_flight=8, groups_per_step=16, max_staleness=40)
    found = simulate(SOME, UNLIKE, plant, steps=30)
    assert found.dropped_share == 0
    assert found.in_flight_mean == pytest.approx(found.steps * 16 / found.seconds * found.sojourn_s)
    assert found.in_flight_mean <= capacity(16, 40)


@settings(max_examples=40, deadline=None)
@given(
    actors=st.integers(1, 5), scorers=st.integers(1, 3), slots=st.integers(1, 9), size=st.integers(1, 12),
    bound=st.integers(0, 3), load_s=st.sampled_from([0.0, 0.3, 9.0]), kills=st.sampled_from([math.inf, 20.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_staleness_stays_within_its_bound(
    actors: int, scorers: int, slots: int, size: int, bound: int, load_s: float, kills: float, seed: int
) -> None:
    """Whatever else: every step comes about, no group is too old, and the same seed gives the same run."""
    plant = Plant(
        actors, scorers, groups_in_flight=slots, groups_per_step=size, max_staleness=bound,
        kill_every_s=kills, restart_s=5.0, claim_after_s=2.0,
    )  # fmt: skip
    times = replace(SOME, load_s=load_s)
    found = simulate(times, UNLIKE, plant, steps=12, seed=seed, until_s=3e4)
    assert found.steps == 12 and max(found.staleness) <= bound
    assert sum(found.staleness.values()) == pytest.approx(1.0)
    assert found.in_flight_mean <= capacity(size, bound)
    if bound == 0 and math.isinf(kills):
        assert found.dropped_share == 0, "a batch that waits for all of its tickets has nothing old in it"
    again = simulate(times, UNLIKE, plant, steps=12, seed=seed, until_s=3e4)
    assert str(again) == str(found)  # equal, and nan where nan is


def test_what_is_too_old_is_dropped_and_replaced() -> None:
    plant = Plant(actors=2, scorers=1, groups_in_flight=16, groups_per_step=4, max_staleness=1)
    lengths = ((20, 20, 20, 20),) * 9 + ((2000, 20, 20, 20),)  # one in ten outlasts several steps
    found = simulate(SOME, Work(4, 20, groups=lengths), plant, steps=60)
    assert found.steps == 60 and found.dropped_share > 0.02 and max(found.staleness) == 1


def test_what_the_dead_held_is_done_again() -> None:
    plant = Plant(4, 2, groups_in_flight=8, groups_per_step=16, kill_every_s=30.0, restart_s=10.0, claim_after_s=5.0)
    calm = simulate(SOME, UNLIKE, replace(plant, kill_every_s=math.inf), steps=40)
    found = simulate(SOME, UNLIKE, plant, steps=40, until_s=3e4)
    assert found.redelivered > 0 and calm.redelivered == 0
    assert found.steps == 40 and found.step_s > calm.step_s


def test_an_actor_is_what_it_is_token_by_token() -> None:
    """Against a loop over engine steps; groups join as others end, new weights come as some end."""
    chance = np.random.default_rng(3)
    waiting = [[float(n) for n in chance.integers(1, 90, 4)] for _ in range(30)]
    loads = {7: 1, 8: 2, 19: 3}  # by the number of the group whose end brings them
    expected = _token_by_token(SOME, 20, 5, waiting, loads)

    clock, ends, left = Clock(), {}, list(enumerate(waiting))

    def next_group() -> Group:
        id, lengths = left.pop(0)
        return Group(id, lengths, 0.0, clock.now)

    def finished(actor: Actor, group: Group) -> None:
        ends[group.id] = (clock.now, group.version)
        if (version := loads.get(len(ends))) is not None:
            actor.load(version)
        if left:
            actor.start([next_group()])

    actor = Actor(clock, SOME, 20, 5, finished)
    actor.start([next_group() for _ in range(5)])
    clock.run(lambda: False)
    assert {id: version for id, (_, version) in ends.items()} == {id: version for id, (_, version) in expected.items()}
    for id, (time, _) in expected.items():
        assert ends[id][0] == pytest.approx(time, rel=1e-9)
    assert actor.sampling_s + actor.stalled_s == pytest.approx(clock.now)


def _token_by_token(
    times: Times, prompt: float, slots: int, waiting: list[list[float]], loads: dict[int, int]
) -> dict[int, tuple[float, int]]:
    """{group: (when it ended, its oldest version)}."""
    left, running, ends = list(enumerate(waiting)), [], {}
    now, version = 0.0, 0
    sampled: dict[tuple[int, int], float] = {}

    def start() -> None:
        nonlocal now
        id, lengths = left.pop(0)
        running.append((id, lengths, version))
        sampled.update({(id, i): 0.0 for i in range(len(lengths))})
        now += times.start_group_s

    for _ in range(slots):
        start()
    while running:
        alive = {key for key in sampled if sampled[key] < waiting[key[0]][key[1]]}
        context = sum(prompt + sampled[key] for key in alive)
        now += times.decode_step_s + times.decode_sequence_s * len(alive) + times.decode_context_s * context
        for key in alive:
            sampled[key] += 1
        for group in [g for g in running if all(sampled[g[0], i] >= n for i, n in enumerate(g[1]))]:
            running.remove(group)
            ends[group[0]] = (now, group[2])
            if len(ends) in loads:
                version = loads[len(ends)]
                alive = {key for key in sampled if sampled[key] < waiting[key[0]][key[1]]}
                context = sum(prompt + sampled[key] for key in alive)
                now += times.load_s + times.recompute_token_s * context
            if left:
                start()
    return ends


def test_an_announcement_while_weights_are_loaded_is_followed_afterwards() -> None:
    clock, ends = Clock(), []
    times = replace(NOTHING, decode_step_s=0.1, load_s=10.0)
    actor = Actor(clock, times, 5, 1, lambda actor, group: ends.append((clock.now, group.version)))
    actor.start([Group(0, [20.0], 0.0, 0.0)])
    for time, version in ((1.0, 1), (4.0, 2), (5.0, 3)):
        clock.at(time, lambda version=version: actor.load(version))
    clock.run(lambda: False)
    # ten tokens, one load, a token, the other load (version 2 is passed over), nine tokens
    assert ends == [(pytest.approx(22.0), 0)] and actor.version == 3


def test_jobs_share_cores() -> None:
    def ends(cores: float, jobs: list[tuple[float, float]]) -> list[float]:
        """jobs: (when it comes, core-seconds)."""
        clock, found = Clock(), {}
        shared = Cores(clock, cores)
        for name, (time, work) in enumerate(jobs):

            def come(name: int = name, work: float = work) -> None:
                shared.run(work, lambda: found.update({name: clock.now}))

            clock.at(time, come)
        clock.run(lambda: False)
        return [found[name] for name in range(len(jobs))]

    assert ends(1, [(0, 1), (0, 1)]) == pytest.approx([2, 2])
    assert ends(1, [(0, 1), (0, 3)]) == pytest.approx([2, 4])
    assert ends(2, [(0, 1), (0, 3)]) == pytest.approx([1, 3])
    assert ends(2, [(0, 2), (0, 2), (0, 2)]) == pytest.approx([3, 3, 3])
    assert ends(1, [(0, 4), (2, 1)]) == pytest.approx([5, 4])
    assert ends(math.inf, [(0, 4), (2, 1), (2, 7)]) == pytest.approx([4, 3, 9])


def test_a_simulation_that_leads_nowhere_ends_with_an_error() -> None:
    plant = replace(ONE, kill_every_s=1.0, restart_s=5.0, claim_after_s=1.0)
    with pytest.raises(RuntimeError, match="no end after"):
        simulate(one_by_one(500.0, 1.0, 1.0), ALIKE, plant, steps=3, until_s=1000.0)


def test_lengths_are_those_recorded_group_by_group_or_lognormal() -> None:
    chance = np.random.default_rng(0)
    groups = ((5, 6), (70, 80), (0, 9))
    drawn = Work(2, 1, groups=groups).lengths(400, chance).tolist()
    assert Counter(map(tuple, drawn)).keys() == {(5, 6), (70, 80), (1, 9)}
    lengths = Work(8, 1, mean_tokens=300, sigma=0.5).lengths(5000, chance)
    assert lengths.mean() == pytest.approx(300, rel=0.02)
    assert np.log(lengths).std() == pytest.approx(0.5, rel=0.03)
    assert Work(8, 1, mean_tokens=300, sigma=2, max_tokens=400).lengths(50, chance).max() == 400


def test_inputs_come_back_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    for work in (UNLIKE, Work(2, 3.5, groups=((5, 6), (7, 8)))):
        for plant in (ONE, replace(ONE, shared_cores=1.5, kill_every_s=60.0)):
            given = Inputs(SOME, work, plant, "this test")
            given.save(file)
            assert load(file) == given
    for foreign in (
        '{"origin": "", "plant": {}, "work": {}, "times": {}}',
        file.read_text().replace("load_s", "lode_s"),
    ):
        file.write_text(foreign)
        with pytest.raises(ValueError, match="stage_times"):
            load(file)


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="load_s = nan"):
        replace(SOME, load_s=float("nan"))
    with pytest.raises(ValueError, match="4 completions"):
        Work(4, 20, groups=((1, 2),))
    with pytest.raises(ValueError, match="mean_tokens"):
        Work(4, 20)
