"""A batch larger than memory, for real: processes whose data may grow by so much and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.errors import MemoryFull, ModelError
from common.settings import Sections
from learner.memory import FILE, fitting_budget, halved_when_full

ASKED = 16384
SCRIPT = """
import resource, sys
from pathlib import Path
from common.settings import Sections
from learner.memory import fitting_budget, halved_when_full
from learner.worker import _policy
from tests.integration.team_script import sequences

model, out, megabytes, settings = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
settings = Sections.model_validate_json(settings)
budget = fitting_budget(settings)
policy = _policy(settings, model, budget)
if megabytes:
    [used] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")]
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + megabytes * 2**20,) * 2)
try:
    with halved_when_full(settings, budget):
        print(policy.step(sequences(640, 1), 1.0).metrics["micro_batches"])
except Exception as error:
    print(error)
    sys.exit(getattr(error, "exit_code", 1))
policy.export(out)
"""


def settings(folder: Path, **learner: object) -> Sections:
    return Sections.model_validate(
        {
            "run": {"folder": folder, "steps": 1},
            "model": {"policy": "nowhere"},
            "data": {"train": "reasoning-gym", "families": {"chain_sum": {}}, "max_prompt_tokens": 30},
            "sampling": {"max_tokens": 30},
            "actor": {"max_model_len": 64},
            "learner": {"micro_batch_tokens": ASKED, "lr": 1e-3} | learner,
        }
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [1, 3])
def test_the_budget_is_halved_until_it_fits_and_the_step_is_the_same(model: Path, tmp_path: Path, stage: int) -> None:
    def step(out: str, megabytes: int) -> subprocess.CompletedProcess[str]:
        dumped = settings(tmp_path / "run", zero_stage=stage).model_dump_json()
        command = [sys.executable, "-c", SCRIPT, str(model), str(tmp_path / out), str(megabytes), dumped]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=280)

    (tmp_path / "run").mkdir()
    assert step("free", 0).returncode == 0
    tried = []
    while not tried or (tried[-1].returncode == MemoryFull.exit_code and len(tried) < 8):
        tried.append(step("tight", 120))
    *full, done = tried
    assert len(full) >= 1 and done.returncode == 0, [process.stdout for process in tried]
    for number, process in enumerate(full, 1):
        assert f"the next start takes {ASKED >> number}" in process.stdout
    assert json.loads((tmp_path / "run" / FILE).read_text()) == {"asked": ASKED, "fits": ASKED >> len(full)}
    free, tight = (load_file(tmp_path / out / "model.safetensors") for out in ("free", "tight"))
    for name, weight in free.items():
        torch.testing.assert_close(tight[name], weight, rtol=0, atol=2e-5)


def test_two_ranks_that_are_full_at_once_halve_it_once(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(MemoryFull, match="takes 8192"), halved_when_full(settings(tmp_path), ASKED):
            raise torch.OutOfMemoryError("no room")
    assert fitting_budget(settings(tmp_path)) == 8192


def test_another_setting_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(MemoryFull, match="takes 8192"), halved_when_full(settings(tmp_path), ASKED):
        raise torch.OutOfMemoryError("no room")
    assert fitting_budget(settings(tmp_path)) == 8192
    assert fitting_budget(settings(tmp_path, micro_batch_tokens=3000)) == 3000


@pytest.mark.parametrize(
    "text", ["", "[]", '{"asked": 16384}', '{"asked": 16384, "fits": "x"}', '{"asked": 16384, "fits": 0}']
)
def test_a_torn_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert fitting_budget(settings(tmp_path)) == ASKED


def test_less_than_one_sequence_cannot_be_computed(tmp_path: Path) -> None:
    tiny = settings(tmp_path, micro_batch_tokens=60)
    with pytest.raises(ModelError, match=r"learner\.gradient_checkpointing"), halved_when_full(tiny, 60):
        raise torch.OutOfMemoryError("no room")


def test_other_errors_are_their_own(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), halved_when_full(settings(tmp_path), ASKED):
        raise RuntimeError("shapes")
    assert not (tmp_path / FILE).exists()
