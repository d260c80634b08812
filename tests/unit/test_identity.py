"""What a model is called on record: two trainings of one folder must not have the same name."""

import json
from pathlib import Path

from common.models import SAMPLED_BYTES, identity


def folder(path: Path, weights: bytes, config: str = "{}") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(config)
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_folder_of_ones_own_is_named_by_what_is_in_it(tmp_path: Path) -> None:
    weights = bytes(3 * SAMPLED_BYTES)
    first = identity("runs/rm", folder(tmp_path / "a" / "rm", weights))
    assert first.startswith("rm@") and len(first) == len("rm@") + 12
    assert identity("elsewhere/rm", folder(tmp_path / "b" / "rm", weights)) == first, "the place is not the model"
    others = [
        identity("rm", folder(tmp_path / "c" / "rm", b"\1" + weights[1:])),
        identity("rm", folder(tmp_path / "d" / "rm", weights[:-1] + b"\1")),
        identity("rm", folder(tmp_path / "e" / "rm", weights + b"\0")),
        identity("rm", folder(tmp_path / "f" / "rm", weights, json.dumps({"num_labels": 1}))),
    ]
    assert len({first, *others}) == 5


def test_a_model_of_the_hub_has_its_commit(tmp_path: Path) -> None:
    snapshot = folder(tmp_path / "snapshots" / "0123456789abcdef0123456789abcdef01234567", b"")
    assert identity("nvidia/AceMath-7B-RM", snapshot) == "nvidia/AceMath-7B-RM@0123456789ab"
