"""A reward model behind a vLLM pooling server: `vllm serve MODEL --runner pooling`.

Samples are rendered and tokenized here and sent as token ids, so the server sees exactly what `Classifier` would feed
its model, and the activation (a sigmoid, for one label) is off.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import structlog
import tenacity

from common.errors import ModelError
from scorer.reward_models.known import Truncation, Usage
from scorer.reward_models.protocol import Sample, Scores, score_once
from scorer.reward_models.rendering import Ids, batches, cut, encode

KEY_VARIABLE = "REWARD_MODEL_API_KEY"
"""Sent as a bearer token: `vllm serve --api-key`. From the environment: settings are written into the run's folder."""
MAX_REPLY_BYTES = 16 * 2**20
LONGEST_PAUSE_S = 30.0

log = structlog.get_logger("reward model")


class ServerAway(ModelError):
    """Nobody answers, or not in time, or the server says that it cannot now: worth another attempt."""


class HttpClassifier:
    """Raw logits from a server; several requests at a time, each with a deadline, repeated when the server is away.

    url: of the server, e.g. http://rm:8000. tokenizer: that of its model. revision: of that model, for the record.
    deadline_s: of one request. attempts: of one request, with pauses between that grow up to LONGEST_PAUSE_S.
    concurrency: requests at a time. batch_tokens: of one request. max_length: tokens of one sample; the server's own
    limit holds as well. stop: ends the pauses.

    Raises ServerAway when nobody answers, ModelError when the server is none of this kind.
    """

    def __init__(
        self,
        url: str,
        *,
        tokenizer: Any,
        revision: str | None = None,
        usage: Usage,
        batch_tokens: int,
        max_length: int,
        truncation: Truncation = "none",
        deadline_s: float,
        attempts: int,
        concurrency: int,
        stop: threading.Event | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.tokenizer = tokenizer
        self.usage = usage
        self.deadline_s = deadline_s
        self.batch_tokens = batch_tokens
        self.truncation = truncation
        key = os.environ.get(KEY_VARIABLE)
        self._client = httpx.Client(
            base_url=self.url, timeout=deadline_s, headers={"Authorization": f"Bearer {key}"} if key else {}
        )
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="reward-model")
        stop = stop or threading.Event()
        self._attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ServerAway),
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(stop),
            wait=tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_PAUSE_S),
            sleep=tenacity.sleep_using_event(stop),
            before_sleep=_say,
            reraise=True,
        )
        served = self._ask("GET", "/v1/models", None)
        try:
            self._model = str(served["data"][0]["id"])
            limit = int(served["data"][0]["max_model_len"])
        except (TypeError, LookupError, ValueError) as error:
            raise ModelError(f"{self.url} is no vLLM server: it lists its models as {served!r:.200}") from error
        self.name = f"{self._model}@{revision}" if revision else self._model
        self.max_length = min(max_length, limit)
        self.score([Sample("question", "answer")])  # a server that does not pool, or a foreign tokenizer, is found now

    def score(self, samples: Sequence[Sample]) -> Scores:
        """Raw logits: float64 [N]; nan where a sample exceeds `max_length`, inf where its logit is not finite.

        Raises ServerAway after the last attempt, ModelError when the server refuses.
        """
        encoded = encode(self.tokenizer, [(s.question, s.completion) for s in samples], self.usage)
        sequences = cut(encoded, self.max_length, self.truncation)

        def found(places: list[int]) -> Scores:
            packed = batches([len(sequences[place]) for place in places], self.batch_tokens)
            asked = [[sequences[places[at]] for at in batch] for batch in packed]
            scores = np.empty(len(places))
            for batch, given in zip(packed, self._threads.map(self._logits, asked), strict=True):
                scores[batch] = given
            return scores

        return score_once(self.name, samples, [len(ids) for ids in sequences], self.max_length, found)

    def close(self) -> None:
        """Ends the connections; requests that are under way end first."""
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def _logits(self, sequences: Sequence[Ids]) -> Scores:
        """The server's logit of each sequence: float64 [B], in base64 since JSON knows no nan."""
        body = {
            "model": self._model,
            "task": "classify",
            "input": sequences,
            "use_activation": False,
            "encoding_format": "base64",
        }
        reply = self._ask("POST", "/pooling", body)
        try:
            rows = sorted(reply["data"], key=lambda row: int(row["index"]))
            scores = [np.frombuffer(base64.b64decode(row["data"], validate=True), dtype="<f4") for row in rows]
        except (TypeError, LookupError, ValueError) as error:
            raise ModelError(f"{self.url} answers what is no list of scores: {reply!r:.200}") from error
        if len(scores) != len(sequences) or any(score.shape != (1,) for score in scores):
            raise ModelError(
                f"{self.url} answers {len(scores)} rows of {[len(score) for score in scores[:3]]} numbers to "
                f"{len(sequences)} samples; a reward model has one label"
            )
        found: Scores = np.concatenate(scores).astype(np.float64)
        return found

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """The server's JSON, after as many attempts as it takes. Raises ServerAway, ModelError."""
        return self._attempts.copy()(self._ask_once, method, path, body)  # copied: the threads share no counter

    def _ask_once(self, method: str, path: str, body: Any) -> Any:
        ends = time.monotonic() + self.deadline_s
        try:
            with self._client.stream(method, path, json=body) as reply:
                parts, size = [], 0
                for part in reply.iter_bytes():
                    parts.append(part)
                    if (size := size + len(part)) > MAX_REPLY_BYTES:
                        raise ModelError(f"{self.url}{path} answers more than {MAX_REPLY_BYTES:,} bytes")
                    if time.monotonic() > ends:  # the client's own limit is for each piece
                        raise httpx.ReadTimeout(f"only {size:,} bytes in {self.deadline_s:g} s")
        except httpx.TransportError as error:  # refused, cut off, too late
            raise ServerAway(
                f"no answer from the reward model's server {self.url}{path} ({type(error).__name__}: {error}); is it "
                "up? reward_model.deadline_s is for one request"
            ) from error
        text = b"".join(parts)
        if reply.status_code == 429 or reply.status_code >= 500:
            raise ServerAway(f"{self.url}{path} answers {reply.status_code}: {text[:200]!r}")
        if reply.status_code != 200:
            raise ModelError(
                f"{self.url}{path} refuses with {reply.status_code}: {text[:300]!r}; it must be a vLLM server of a "
                f"reward model, started with --runner pooling ({KEY_VARIABLE} holds its key if it has one)"
            )
        try:
            return json.loads(text)
        except ValueError as error:
            raise ModelError(f"{self.url}{path} answers what is no JSON: {text[:200]!r}") from error


def _say(state: tenacity.RetryCallState) -> None:
    why = state.outcome.exception() if state.outcome else None
    log.warning("the reward model's server is away, will ask again", attempt=state.attempt_number, why=str(why))
