"""A reward model behind a real vLLM pooling server, and servers that misbehave."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from common.config import load as load_settings
from common.errors import ModelError
from common.lifecycle import die_with_parent
from scorer.reward_models.backends import make_reward_model
from scorer.reward_models.classifier import Classifier
from scorer.reward_models.http import KEY_VARIABLE, HttpClassifier, ServerAway
from scorer.reward_models.known import Usage
from scorer.reward_models.protocol import Sample
from scorer.reward_models.rendering import load_tokenizer
from tests import tiny_models
from tests.servers import free_ports
from tests.until import until

SAMPLES = [Sample(f"{n}+1=?", f"it is {n + 1}" * (n % 7 + 1)) for n in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_models.reward_model(tmp_path_factory.mktemp("rm"))


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory) -> Iterator[str]:
    """`python -m vllm...api_server --runner pooling`, with a key."""
    [port] = free_ports(1)
    out = tmp_path_factory.mktemp("server") / "log"
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with out.open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
                "--runner", "pooling", "--enforce-eager", "--dtype", "float32", "--host", "127.0.0.1",
                "--port", str(port), "--max-model-len", "128", "--api-key", "s3cret",
            ],
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, out.read_text()[-3000:]
        return httpx.get(f"{url}/health").status_code == 200

    try:
        until(ready, "the pooling server answers", seconds=240, passing=(httpx.TransportError,))
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def key(monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "s3cret")


def connect(url: str, folder: Path, **changes) -> HttpClassifier:
    values = dict(usage=Usage(), batch_tokens=512, max_length=4096, deadline_s=30.0, attempts=2, concurrency=4)
    return HttpClassifier(url, tokenizer=load_tokenizer(folder), **values | changes)


def test_its_scores_are_those_of_the_classifier(server, folder, key):
    samples = [*SAMPLES, Sample("?", "x" * 200)]
    here = Classifier(folder, usage=Usage(), dtype="float32", batch_tokens=512, max_length=4096, device="cpu")
    expected = here.score(samples)
    there = connect(server, folder, revision="1a2b")
    assert there.name.endswith("@1a2b")
    got = there.score(samples)
    assert np.isnan(got[-1]) and np.isnan(expected[-1]), "both know the 128 tokens of the model"
    assert got[:-1] == pytest.approx(expected[:-1], abs=1e-4)
    assert abs(got[:-1]).max() > 1, "no sigmoid was applied"
    there.close()


def test_the_settings_make_one(server, folder, key, tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(f'[reward_model]\nbackend = "http"\nmodel = "{folder}"\nurl = "{server}"\n')
    model = make_reward_model(load_settings(file))
    assert model.score(SAMPLES[:3]).shape == (3,)
    model.close()


def test_a_wrong_key_is_told(server, folder, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "wrong")
    with pytest.raises(ModelError, match=f"401.*{KEY_VARIABLE}"):
        connect(server, folder)


class Misbehaving(BaseHTTPRequestHandler):
    """A server that speaks the protocol, and fails as its class attributes say."""

    failing: list[int] = []
    """Status of the next answers; then it behaves."""
    scores: list[float] = []
    hang = threading.Event()
    most = at_a_time = 0
    changed = threading.Condition()
    meet = False
    """Whether a request waits for a second one beside it."""

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": "rm", "max_model_len": 128}]})

    def do_POST(self) -> None:
        kind = type(self)
        with kind.changed:
            kind.at_a_time += 1
            kind.most = max(kind.most, kind.at_a_time)
            kind.changed.notify_all()
            assert not kind.meet or kind.changed.wait_for(lambda: kind.most > 1, timeout=60)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["use_activation"] is False
        status = kind.failing.pop(0) if kind.failing else 200
        if status == 0:
            kind.hang.wait(30)
        if status == -1:
            self.connection.close()
            return
        rows = [kind.scores.pop(0) if kind.scores else float(len(ids)) for ids in asked["input"]]
        data = [{"index": n, "data": base64.b64encode(np.float32([x]).tobytes()).decode()} for n, x in enumerate(rows)]
        with kind.changed:
            kind.at_a_time -= 1
        self._reply(status or 200, {"data": data[::-1]})

    def _reply(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def misbehaving() -> Iterator[tuple[str, type[Misbehaving]]]:
    kind = type("Kind", (Misbehaving,), {"failing": [], "scores": [], "hang": threading.Event(), "most": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", kind
        kind.hang.set()
        running.shutdown()


def test_a_server_that_is_away_is_asked_again(misbehaving, folder):
    url, kind = misbehaving
    model = connect(url, folder, attempts=5, deadline_s=1.0)
    kind.failing[:] = [503, -1, 0]  # overloaded, cut off, silent
    assert np.isfinite(model.score(SAMPLES[:1])).all()
    assert kind.failing == []
    kind.failing[:] = [503] * 2
    with pytest.raises(ServerAway, match="503"):
        connect(url, folder, attempts=2).score(SAMPLES[:1])


def test_nobody_there(folder):
    [port] = free_ports(1)
    with pytest.raises(ServerAway, match="is it up"):
        connect(f"http://127.0.0.1:{port}", folder, attempts=1)


def test_a_stop_ends_the_attempts(misbehaving, folder):
    url, kind = misbehaving
    stop = threading.Event()
    model = connect(url, folder, attempts=1000, stop=stop)
    kind.failing[:] = [503] * 1000
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(ServerAway):
        model.score(SAMPLES[:1])
    assert len(kind.failing) > 900, "each pause is longer than the one before"


def test_a_refusal_is_not_repeated(misbehaving, folder):
    url, kind = misbehaving
    model = connect(url, folder)
    kind.failing[:] = [400]
    with pytest.raises(ModelError, match="refuses with 400"):
        model.score(SAMPLES[:1])
    kind.failing[:] = []
    kind.scores[:] = [1.0]
    assert model.score(SAMPLES[:1]).tolist() == [1.0]


def test_requests_are_bounded_and_their_scores_in_order(misbehaving, folder):
    url, kind = misbehaving
    model = connect(url, folder, batch_tokens=1, concurrency=3)
    kind.most, kind.meet = 0, True
    lengths = [len(model.tokenizer(f"<|user|>{s.question}<|assistant|>{s.completion}")["input_ids"]) for s in SAMPLES]
    assert model.score(SAMPLES).tolist() == [length + 1 for length in lengths]
    assert 1 < kind.most <= 3


def test_a_score_that_is_not_finite_is_the_completions_own(misbehaving, folder):
    url, kind = misbehaving
    model = connect(url, folder)
    kind.scores[:] = [np.nan, 1.0]
    assert sorted(model.score([Sample("?", "a"), Sample("?", "bc")]).tolist()) == [1.0, np.inf]
    kind.scores[:] = [np.nan, np.inf]
    with pytest.raises(ModelError, match="no finite score"):
        model.score([Sample("?", "a"), Sample("?", "bc")])


@pytest.mark.parametrize("body", [b"<html>", b'{"data": 1}', b'{"data": [{"index": 0, "data": "AAAA"}]}', b"[]"])
def test_nonsense_is_refused(misbehaving, folder, monkeypatch, body):
    url, kind = misbehaving
    model = connect(url, folder)

    def nonsense(self: Misbehaving) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    monkeypatch.setattr(kind, "do_POST", nonsense)
    with pytest.raises(ModelError, match="answers"):
        model.score(SAMPLES[:1])
