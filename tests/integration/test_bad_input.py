"""Bad input: a clear message or a status each; none ends a run, nothing is lost.

| what                                          | test                                                            |
|-----------------------------------------------|-----------------------------------------------------------------|
| a line that is not JSON                       | unit/test_problems: test_a_bad_line_..., e2e/test_run: bad line |
| a line without a field                        | unit/test_problems: test_a_bad_line_...                         |
| an empty prompt                               | unit/test_problems: test_a_bad_line_...                         |
| an over-long prompt                           | here: test_lines_that_only_the_model_or_the_verifier_...        |
| an answer that does not parse                 | here: test_lines_that_only_the_model_or_the_verifier_...        |
| line number, reason, counted, goes on         | here, and e2e/test_run: test_the_bad_line_is_named_...          |
| all lines bad                                 | here: test_all_lines_bad, unit/test_problems                    |
| a missing model                               | here: test_a_missing_model, test_a_start_without_the_model_..., |
|                                               | test_a_folder_that_is_no_model                                  |
| an incompatible model                         | here: test_a_model_without_a_tokenizer; e2e/test_engine;        |
|                                               | integration/test_reward_model                                   |
| a broker that is down, too old, evicting      | integration/test_broker_fitness                                 |
| a full broker                                 | integration/test_broker_fitness, test_streams                   |
| a broker that loses its data                  | integration/test_learner_worker, test_streams                   |
| a missing shared folder                       | unit/test_weights, here: test_an_actor_waits_for_...            |
| a full shared folder                          | unit/test_weights: test_a_real_full_disk_..., test_learner_worker |
| a port or socket in use                       | integration/test_server: test_a_socket_in_use_...               |
| a run folder that holds another run           | unit/test_run_folder, e2e/test_run                              |
| a completion of 100 kB, of control characters | integration/test_scorer_worker: test_hostile_..., test_sandbox  |
| a completion of \\boxed{9^{9^{9^9}}}           | here: test_a_tower_of_powers_..., integration/test_sandbox      |
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from rich.console import Console

from actors.engine import LoadTimes
from actors.worker import Actor
from common.errors import DataError, ModelError, SamplerMismatch
from common.models import local_folder
from common.schema import Rollout
from common.settings import Sections
from common.streams import Broker
from common.weights.folder import FILE
from deploy import prepare
from learner.render import Renderer
from scorer.sandbox import Sandbox
from scorer.worker import Scorer
from tests import tiny_models
from tests.make import published, rollout, ticket


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.policy(tmp_path_factory.mktemp("policy"))


def settings(folder: Path, model: Path, lines: list[str], **data: Any) -> Sections:
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "run").mkdir()
    return Sections.model_validate(
        {
            "run": {"folder": str(folder / "run")},
            "model": {"policy": str(model)},
            "data": {"train": str(folder / "data.jsonl"), "max_prompt_tokens": 40, **data},
        }
    )


def line(question: str, answer: str) -> str:
    return json.dumps({"question": question, "answer": answer})


def said(given: Sections) -> tuple[list[Any], str]:
    console = Console(width=200, record=True, stderr=True, quiet=False)
    with console.capture() as told:
        found = prepare.prompts(given, console)
    return found, told.get()


def test_lines_that_only_the_model_or_the_verifier_can_judge(tmp_path: Path, model: Path) -> None:
    # Given one line that is no JSON, one that is too long in the policy's own tokens, one whose answer is nothing
    given = settings(
        tmp_path,
        model,
        [line("1 + 1", "2"), "no JSON", line("x" * 50, "2"), line("1 / 2", "\\frac{1}{2}"), line("what", "?!")],
    )
    # When the prompts are prepared
    found, told = said(given)
    # Then the rest is used, and each is listed with its line in the file and its reason
    assert [problem.answer for problem in found] == ["2", "\\frac{1}{2}"]
    bad = [json.loads(row) for row in (tmp_path / "run" / "bad_lines.jsonl").open()]
    assert [row["number"] for row in bad] == [2, 3, 5]
    assert bad[0]["reason"].startswith("not JSON")
    assert "tokens, data.max_prompt_tokens = 40" in bad[1]["reason"]
    assert bad[2]["reason"].startswith("answer does not parse")
    assert "3 of 5 lines cannot be used" in told and "bad_lines.jsonl" in told
    # And a resumed run takes the same without looking again
    (tmp_path / "data.jsonl").unlink()
    assert prepare.prompts(given, Console(quiet=True)) == found


def test_all_lines_bad(tmp_path: Path, model: Path) -> None:
    given = settings(tmp_path, model, [line("x" * 50, "2"), line("y" * 50, "2")])
    with pytest.raises(DataError, match="no usable line; 2 bad ones are in"):
        prepare.prompts(given, Console(quiet=True))
    assert not (tmp_path / "run" / "prompts.jsonl").exists(), "nothing is left that a second start would take"


@pytest.mark.parametrize("name", ["", "/nowhere/model", "./model", "model"])
def test_a_missing_model(name: str) -> None:
    with pytest.raises(ModelError, match=r"model\.policy") as caught:
        local_folder(name, "model.policy")
    assert "hub name" in str(caught.value), "the remedy"


@pytest.mark.parametrize("command", ["up", "learner"])
def test_a_start_without_the_model_leaves_the_run_folder_to_the_next(command: str, tmp_path: Path) -> None:
    flags = ["--model.policy=/nowhere/model", f"--run.folder={tmp_path / 'run'}", "--broker.url=redis://nobody.invalid"]
    started = [sys.executable, "-m", "deploy.cli", command, *flags]
    done = subprocess.run(started, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == ModelError.exit_code and "there is no such folder" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json; it is not a model in Hugging Face layout"):
        local_folder(str(tmp_path), "model.policy")


def test_a_model_without_a_tokenizer(tmp_path: Path, model: Path) -> None:
    shutil.copy(model / "config.json", tmp_path)
    with pytest.raises(ModelError, match="has no usable tokenizer"):
        Renderer(tmp_path, "")


def test_a_model_without_a_chat_template_gets_plain_text(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    decode = Renderer(tmp_path / "plain", "").tokenizer.decode
    assert decode(Renderer(tmp_path / "plain", "").prompt_ids("1 + 1")) == "1 + 1\n"
    assert decode(Renderer(tmp_path / "plain", "Be brief.").prompt_ids("1 + 1")) == "Be brief.\n1 + 1\n"


class FakeEngine:
    """Loads whatever it is given; its log-probabilities are `found`."""

    busy = False

    def __init__(self, found: float = 0.0) -> None:
        self.loaded: list[Path] = []
        self.found = found

    def load(self, folder: Path, version: int) -> LoadTimes:
        self.loaded.append(folder)
        return LoadTimes(0, 0, 0, 0)

    def prompt_logprobs(self, prompts: list[list[int]]) -> list[np.ndarray]:
        return [np.full(len(p) - 1, self.found, np.float32) for p in prompts]

    def close(self) -> None:
        pass


def actor_of(broker: Broker, engine: FakeEngine, **options: Any) -> Actor:
    settings = Sections.model_validate({"actor": options})
    return Actor(settings, broker, engine, threading.Event())  # type: ignore[arg-type]


def test_an_actor_waits_for_a_weights_folder_that_is_missing(broker: Broker, tmp_path: Path, monkeypatch) -> None:
    # Given weights that were announced, in a folder that this host does not have
    monkeypatch.setattr("actors.follower.RETRY_S", 0.0)
    monkeypatch.setattr("actors.follower.POLL_S", 0.0)
    there = published(tmp_path / "there")
    here = tmp_path / "here" / Path(there.folder).name
    broker.announce(dataclasses.replace(there, incarnation=broker.take_over(), folder=str(here)))
    engine = FakeEngine()
    actor = actor_of(broker, engine, weights_from="folder")
    try:
        # When the actor follows the policy again and again
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                actor._follower.follow(now=True)
        # Then it says so once, with the remedy, and loads nothing
        assert engine.loaded == []
        [told] = [entry for entry in logs if entry["event"].startswith("weights not loaded")]
        assert "mount the learner's weights folder on this host" in told["why"]
        # And goes on when the folder is there, but not with a torn file
        (tmp_path / "there").rename(tmp_path / "here")
        file = here / FILE
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + b"x")
        actor._follower.follow(now=True)
        assert engine.loaded == []
        file.write_bytes(whole)
        actor._follower.follow(now=True)
        assert engine.loaded == [here]
    finally:
        actor.close()


@pytest.mark.parametrize("found", [-0.5, float("nan")])
def test_an_engine_that_computes_something_else_is_an_error(broker: Broker, tmp_path: Path, found: float) -> None:
    check = {"check_ids": [np.arange(4, dtype=np.int32)], "check_logprobs": [np.full(3, -0.4, np.float32)]}
    broker.announce(published(tmp_path, broker.take_over(), **check))
    actor = actor_of(broker, FakeEngine(found))
    try:
        with pytest.raises(
            SamplerMismatch, match=r"actor\.max_logprob_difference = 0\.02.*same model folder, tokenizer"
        ):
            actor._follower.follow(now=True)
    finally:
        actor.close()


def test_check_sequences_that_the_engine_cannot_read_are_an_error(broker: Broker, tmp_path: Path, monkeypatch) -> None:
    def refuse(prompts: list[list[int]]) -> list[np.ndarray]:
        raise ValueError("token ids 0 to 99 do not fit a vocabulary of 9")

    check = {"check_ids": [np.array([0, 99], np.int32)], "check_logprobs": [np.zeros(1, np.float32)]}
    broker.announce(published(tmp_path, broker.take_over(), **check))
    engine = FakeEngine()
    monkeypatch.setattr(engine, "prompt_logprobs", refuse)
    actor = actor_of(broker, engine)
    try:
        with pytest.raises(SamplerMismatch, match=r"cannot read the check sequences of step 0 \(token ids 0 to 99"):
            actor._follower.follow(now=True)
    finally:
        actor.close()


def test_a_tower_of_powers_times_out_and_its_group_is_scored(broker: Broker) -> None:
    # Given a group with a completion that no verifier ends, between two ordinary ones
    order = ticket(broker.run, 0, completions=3, incarnation=broker.take_over())
    assert broker.issue(order)
    [taken] = broker.read("tickets", 1, 1000)
    texts = ("\\boxed{2}", "\\boxed{9^{9^{9^9}}}", "\\boxed{3}")
    made = rollout(order)
    completions = [dataclasses.replace(made.completions[0], text=text) for text in texts]
    assert broker.hand_over(taken, Rollout(order, completions, "actor", 0.1))
    # When it is scored
    given = Sections.model_validate({"reward": {"mode": "verifier"}})
    with Sandbox(1, 2.0, 1024, 4000, 20_000) as sandbox:
        scorer = Scorer(given, broker, sandbox, None, threading.Event())
        scorer._score(broker.read("rollouts", 1, 1000))
        scorer.close()
    # Then it has a status of its own, and the others theirs
    [scored] = broker.read("scored", 1, 1000)
    assert scored.message.statuses == ["correct", "timeout", "wrong"]
    assert list(scored.message.rewards) == [1, 0, 0] and broker.dead_letters() == []
