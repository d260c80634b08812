"""What is trained in a soak, and what survives of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgpack

from common.errors import BooksError, CheckpointError
from common.lifecycle import computing_environment
from common.streams import Broker
from learner import checkpoint
from learner.json_lines import lines_by_step
from learner.ledger import EvaluationLedger, Ledger
from tests.chaos.audit import Findings, Observer, audit, audit_evaluation, left_in
from tests.chaos.cluster import ROOT

GROUPS_PER_STEP = 4
PROBLEMS = 2000  # more than tickets in most soaks: what one asks for is asked by no other
HELD_OUT = 6
REPLAY_S = 900.0

CONFIG = """
[run]
name = "soak"
folder = "{run}"
steps = 1000000
[broker]
claim_after_ms = 1000
max_deliveries = 1000
[model]
policy = "{folder}/policy"
[data]
train = "{folder}/data.jsonl"
max_prompt_tokens = 96
[sampling]
completions = 4
max_tokens = 16
[actor]
groups_in_flight = 4
max_model_len = 192
kv_cache_gib = 0.1
weights_from = "{weights}"
max_logprob_difference = {difference}
{reward}
[learner]
groups_per_step = {groups}
max_staleness = 2
lr = 1e-3
checkpoint_every_steps = 2
[weights]
folder = "{folder}/weights"
cache = "{folder}/fetched"
[eval]
data = "{folder}/held-out.jsonl"
every_steps = 4
samples = 2
in_flight = 4
"""


WeightsFrom = Literal["folder", "broker", "ring"]


def prepare(folder: Path, run: Path, real: bool, weights_from: WeightsFrom = "folder") -> Path:
    """Settings, a tiny policy and its problems; `run` is the run's folder."""
    from tests import tiny_models

    tiny_models.policy(folder / "policy", max_tokens=192)
    rows = [json.dumps({"question": f"{i} % 2 = ?", "answer": str(i % 2)}) for i in range(PROBLEMS)]
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "held-out.jsonl").write_text("\n".join(rows[:HELD_OUT]) + "\n")
    reward, difference = '[reward]\nmode = "verifier"', 1e9  # the sampler without a model knows no log-probabilities
    if real:  # a random policy is never right: with 0/1 rewards alone nothing would be trained
        tiny_models.reward_model(folder / "reward-model", max_tokens=192)
        reward, difference = f'[reward]\nmode = "rm"\n[reward_model]\nmodel = "{folder}/reward-model"', 0.001
    settings = folder / "soak.toml"
    settings.write_text(
        CONFIG.format(
            folder=folder, run=run, groups=GROUPS_PER_STEP, reward=reward, difference=difference, weights=weights_from
        )
    )
    return settings


@dataclass(frozen=True)
class Outcome:
    """What survived, and what is wrong with it."""

    step: int
    ledger: Ledger
    findings: Findings
    rounds: int = 0
    """Of evaluation, that came to their end."""

    def told(self, violations: list[str]) -> dict[str, int]:
        """Its part of the closing line; every finding and violation goes to standard error."""
        found = vars(self.findings) | {"violations": violations}
        for line in (line for lines in found.values() for line in lines):
            print(line, file=sys.stderr)
        counts = {name: len(lines) for name, lines in found.items()}
        return self.ledger.counts() | counts | {"steps": self.step, "rounds": self.rounds}


def outcome(
    run: Path, settings: Path, broker: Broker, observer: Observer, *, losses: bool = False, replay: bool = True
) -> Outcome:
    """Compares the newest whole checkpoint in the run's folder with the broker, and with an uninterrupted run."""
    try:
        found = checkpoint.latest(run / "checkpoints")
        if found is None:
            return Outcome(0, Ledger(), Findings(lost=[f"every checkpoint under {run}"]))
        state = msgpack.unpackb(found.state)
        ledger = Ledger.restored(state["ledger"])
        asked = EvaluationLedger.restored(msgpack.unpackb(state["evaluation"], strict_map_key=False)["ledger"])
    except (BooksError, CheckpointError) as error:
        return Outcome(0, Ledger(), Findings(lost=[str(error)]))
    published, held = observer.published, left_in(broker, "train")
    findings = audit(ledger, found.step, GROUPS_PER_STEP, held, published, losses=losses)
    rounds = lines_by_step(run / "eval.jsonl")
    findings += audit_evaluation(asked, rounds, HELD_OUT, left_in(broker, "eval"), published, losses=losses)
    if not losses:
        findings.lost += observer.missed()
    if replay:
        findings.differing += _not_replayed(settings, run, found.step, ledger, observer.scored)
    return Outcome(found.step, ledger, findings, len(rounds))


def _not_replayed(settings: Path, run: Path, step: int, ledger: Ledger, scored: Mapping[int, bytes]) -> list[str]:
    """What differs from an uninterrupted run over the same record; that run is a process of its own."""
    trained = {id for done in range(1, step + 1) for id in ledger.trained_in(done)}
    if unseen := sorted(trained - scored.keys()):
        return [f"tickets {unseen[:10]} were trained and never seen in the stream"]
    with tempfile.NamedTemporaryFile() as groups:
        groups.write(msgpack.packb({id: scored[id] for id in trained}))
        groups.flush()
        done = subprocess.run(
            [sys.executable, "-m", "tests.replay", str(settings), str(run), groups.name],
            stdout=subprocess.PIPE,
            text=True,
            env=computing_environment(threads=1) | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            timeout=REPLAY_S,
            check=False,
        )
    if done.returncode:
        return [f"the record cannot be played again: exit code {done.returncode}"]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
