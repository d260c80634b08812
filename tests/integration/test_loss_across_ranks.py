"""The loss on two ranks, each with a part of the batch: the metrics are those of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import multiprocessing

from learner import distributed
from learner.loss import policy_loss
from learner.loss_inputs import LossOptions
from learner.loss_metrics import summarize
from tests.loss_cases import case, picked

OPTIONS = LossOptions(sequence_mask="geometric", mask_low=0.8, mask_high=1.2, kl_coefficient=0.1)
PARTS = [[4, 0], [2, 1, 3]]


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    _, sums = policy_loss(picked(case(), PARTS[rank]), OPTIONS)
    Path(folder, f"{rank}.json").write_text(json.dumps(summarize(distributed.combine(sums))))
    dist.destroy_process_group()


def test_metrics_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=2)
    expected = summarize(policy_loss(case(), OPTIONS)[1])
    assert expected["masked_sequence_share"] == 0.2
    counts = expected.pop("ratio_histogram")
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.pop("ratio_histogram") == counts
        assert found == pytest.approx(expected, rel=1e-9)
