"""What is downloaded of a model that the hub has."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import huggingface_hub
import pytest

from common.errors import ModelError
from common.settings import Sections
from scorer.reward_models.backends import make_reward_model


@pytest.mark.parametrize(("backend", "weights"), [("http", False), ("classifier", True), ("likelihood", True)])
def test_who_asks_a_server_downloads_no_weights(backend: str, weights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(model: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        raise ConnectionError("far away")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model: dict[str, Any] = {"backend": backend, "model": "some/model", "url": "http://rm:8000" if not weights else ""}
    with pytest.raises(ModelError, match="far away"):
        make_reward_model(Sections.model_validate({"reward_model": model}))
    assert any(fnmatch("tokenizer.json", pattern) for pattern in asked)
    assert any(fnmatch("model.safetensors", pattern) for pattern in asked) == weights
