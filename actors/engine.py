"""The sampler: vLLM's engine in this process, stepped by the caller's own thread.

In process, because the asynchronous engine needs a second process: 20 s to start, twice the memory, and an orphan
when the actor is killed. Requests join and leave between any two steps (continuous batching), and so do weights.

    engine = Engine(EngineOptions(model="runs/a/model"), version=0)
    engine.add("ticket-7", prompt_ids, n=8, temperature=1.0, max_tokens=256)
    while engine.busy:
        for completion in engine.step():
            ...

Not thread-safe, and one live engine per process: closing one tears down vLLM's process-wide state. vLLM is imported
when an engine is made, not by importing this module; what differs between its versions is in `actors.vllm_adapter`,
`actors.weight_load` and `actors.cpu_*` (run on 0.32 CPU, written for 0.25.1 CUDA as well).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from actors.vllm_adapter import Output, VllmAdapter
from actors.weight_load import check_adapters, check_tensors, tensor_shapes, weight_files
from common.errors import ModelError, WeightsError
from common.models import check_vocabulary


@dataclass(frozen=True)
class EngineOptions:
    """What one engine is started with. Example: `EngineOptions(model="/models/qwen3-0.6b", dtype="bfloat16")`."""

    model: str  # folder with config.json, tokenizer and safetensors
    dtype: str = "float32"
    max_model_len: int = 512  # tokens, prompt and completion together
    max_num_seqs: int = 256  # completions sampled at once; as many as the groups in flight hold
    kv_cache_gib: float = 1.0  # CPU only
    gpu_memory_utilization: float = 0.85  # CUDA only, share of the device
    tensor_parallel: int = 1
    threads: int = 1  # CPU only
    seed: int = 0  # of the sampler: give every actor its own; the engine seeds the process's generators with it
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Sampled:
    """One finished completion, ended by EOS ("stop"), by length ("length") or by the engine ("abort")."""

    request_id: str
    index: int  # 0..n-1 within the request
    token_ids: list[int]  # includes the end-of-sequence token that stopped it
    logprobs: list[float]  # of each token, natural log, after temperature and top_p
    versions: list[tuple[int, int]]  # run-length [(tokens, version)], the tokens add up to len(token_ids)
    finish_reason: str
    text: str  # special tokens and the stopping token left out
    seconds: float  # from add() to the last token


@dataclass(frozen=True)
class LoadTimes:
    """Seconds that one weight update took, part by part; sampling stood still for their sum."""

    check: float  # headers read and compared
    pause: float  # requests put back, caches cleared
    load: float
    resume: float


@dataclass
class _Running:
    request_id: str
    index: int
    started: float
    marks: list[tuple[int, int]] = field(default_factory=list)  # (tokens sampled before, version from there on)

    def versions(self, length: int) -> list[tuple[int, int]]:
        ends = [tokens for tokens, _ in self.marks[1:]] + [length]
        runs = [(end - start, version) for (start, version), end in zip(self.marks, ends, strict=True)]
        return [run for run in runs if run[0]]  # an update before the first token leaves an empty run


class Engine:
    """One vLLM engine and the policy version that it holds."""

    def __init__(self, options: EngineOptions, version: int) -> None:
        """Start vLLM (5 to 30 s) and sample one token, so that a model that cannot run fails here.

        version: key of the weights in `options.model`; only compared and handed back.
        Raises ModelError when the folder is missing, unusable, or does not match its tokenizer.
        """
        folder = Path(options.model)
        files = weight_files(folder)
        if not (folder / "config.json").is_file() or not files:
            raise ModelError(
                f"{folder} is not a model folder (it needs config.json and *.safetensors); download the model "
                "into a folder first, or save it with save_pretrained"
            )
        self._expected = tensor_shapes(files)
        self._max_model_len = options.max_model_len
        self._version = version
        self._running: dict[str, _Running] = {}
        self._finished: list[Sampled] = []  # of steps taken inside prompt_logprobs, for the next step()
        self._broken = ""
        try:
            self._vllm = VllmAdapter(options)
            self.prompt_logprobs([[0, 0]])
        except Exception as error:  # vLLM raises anything from AssertionError to RuntimeError here
            raise ModelError(
                f"vLLM cannot run {folder} with {options}: {type(error).__name__}: {error}; its log above may say "
                "more; on a CPU the attention head size must be 32, 64, 80, 96, 112, 128 or larger"
            ) from error
        self._tokenizer = self._vllm.tokenizer
        try:
            check_vocabulary(folder, self._tokenizer.get_vocab(), self._vllm.vocab_size)
        except ModelError:
            self.close()
            raise

    @property
    def busy(self) -> bool:
        """Whether `step` still has completions to bring."""
        return bool(self._running or self._finished)

    def add(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        top_p: float = 1.0,
    ) -> None:
        """Queue n completions of one prompt; each comes from `step` on its own when it ends.

        A completion also ends, by "length", when prompt and completion reach max_model_len.
        Raises ValueError, and queues nothing, for a prompt that this model cannot take or an id still running.
        """
        self._check_usable()
        self._check_tokens(prompt_ids, shortest=1)
        if n < 1 or max_tokens < 1:
            raise ValueError(f"request {request_id} wants n={n}, max_tokens={max_tokens}; both must be 1 or more")
        if any(running.request_id == request_id for running in self._running.values()):
            raise ValueError(f"request {request_id} is still running; give every request its own id")
        params = self._vllm.sampling_params(temperature=temperature, top_p=top_p, max_tokens=max_tokens, logprobs=0)
        started = perf_counter()
        # n single requests instead of vLLM's fan-out, which holds all back until the longest has ended.
        group = {
            f"{request_id}/{index}": _Running(request_id, index, started, [(0, self._version)]) for index in range(n)
        }
        self._vllm.add(list(group), prompt_ids, params)
        self._running |= group

    def step(self) -> list[Sampled]:
        """One scheduler iteration, about one token for each running completion; returns those that ended."""
        self._check_usable()
        self._iterate()
        finished, self._finished = self._finished, []
        return finished

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop requests with all their completions; nothing more is returned of them. Unknown ids are ignored."""
        dropped = set(request_ids)
        keys = [key for key, running in self._running.items() if running.request_id in dropped]
        self._vllm.abort(keys)
        for key in keys:
            del self._running[key]
        self._finished = [sampled for sampled in self._finished if sampled.request_id not in dropped]

    def load(self, weights: Path, version: int, adapters: Path | None = None, scale: float = 0.0) -> LoadTimes:
        """Replace the weights between two steps; running completions go on with the new ones.

        weights: folder of safetensors (or one file) with Hugging Face parameter names; any float dtype.
        adapters: file of pairs A, B by peft's names, of which scale * B A is added to their weights.
        Raises WeightsError: before anything changed if the tensors are not this model's, and for good (every later
        call raises as well) if the engine failed midway and now holds a mixture.
        """
        self._check_usable()
        begun = perf_counter()
        files = weight_files(weights)
        if not files:
            raise WeightsError(
                f"policy version {version} was announced but {weights} has no safetensors file; "
                "mount the learner's weights folder on this host"
            )
        check_tensors(tensor_shapes(files), self._expected, tied=self._vllm.tied, source=str(weights))
        if adapters:
            check_adapters(tensor_shapes([adapters]), self._expected, str(adapters))
        checked = perf_counter()
        counts = self._vllm.output_counts()
        try:
            self._vllm.pause()
            paused = perf_counter()
            self._vllm.load([str(file) for file in files], adapters and str(adapters), scale)
            loaded = perf_counter()
            self._vllm.resume()
        except Exception as error:
            self._broken = (
                f"the engine failed while loading {weights} ({error}) and may hold a mixture of two policies; "
                "restart this actor"
            )
            raise WeightsError(self._broken) from error
        for key, running in self._running.items():
            running.marks.append((counts[key], version))
        self._version = version
        return LoadTimes(checked - begun, paused - checked, loaded - paused, perf_counter() - loaded)

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Log-probability of each next token under the current weights at temperature 1.

        sequences: 2 to max_model_len - 1 token ids each (the engine wants room for one more).
        Returns float32 [len - 1] for each sequence, in order. Completions that end meanwhile come from the next
        `step`. Running requests are put back in the queue, so that no full batch or KV cache keeps the sequences
        waiting: after `load` they are there already, at other times their KV cache is computed again.
        Raises ValueError for a sequence that cannot be scored.
        """
        self._check_usable()
        for sequence in sequences:
            self._check_tokens(sequence, shortest=2)
        if self._running:
            self._vllm.pause()
            self._vllm.resume()
        params = self._vllm.sampling_params(temperature=1.0, max_tokens=1, prompt_logprobs=0)
        # No "/" in a key, so none is a completion's.
        wanted = {f"score-{position}": position for position in range(len(sequences))}
        for key, position in wanted.items():
            self._vllm.add([key], sequences[position], params, first=True)
        scores: dict[int, np.ndarray] = {}
        # First in the queue, they advance by one token a step or more: the bound only stops an engine that is stuck.
        for _ in range(sum(map(len, sequences))):
            if len(scores) == len(sequences):
                break
            for output in self._iterate():
                scores[wanted[output.key]] = np.asarray(output.prompt_logprobs, dtype=np.float32)
        if len(scores) < len(sequences):
            self._vllm.abort(list(wanted))
            raise ModelError(
                f"the engine scored {len(scores)} of {len(sequences)} sequences and is stuck; raise the KV cache"
            )
        return [scores[position] for position in range(len(sequences))]

    def close(self) -> None:
        """Free the model and the caches; running requests are lost. The engine is unusable afterwards."""
        self._broken = self._broken or "this engine is closed; make another"
        self._running.clear()
        self._vllm.close()

    def _iterate(self) -> list[Output]:
        """Step vLLM; keep the completions that ended in `_finished`, return the outputs that are not completions."""
        others = []
        for output in self._vllm.step():
            if running := self._running.pop(output.key, None):
                self._finished.append(self._sampled(running, output))
            else:
                others.append(output)
        return others

    def _sampled(self, running: _Running, output: Output) -> Sampled:
        token_ids = output.token_ids
        stopped = output.finish_reason == "stop"
        return Sampled(
            request_id=running.request_id,
            index=running.index,
            token_ids=token_ids,
            logprobs=output.logprobs,
            versions=running.versions(len(token_ids)),
            finish_reason=output.finish_reason if output.finish_reason in ("stop", "length") else "abort",
            text=self._tokenizer.decode(token_ids[:-1] if stopped else token_ids, skip_special_tokens=True),
            seconds=perf_counter() - running.started,
        )

    def _check_usable(self) -> None:
        if self._broken:
            raise WeightsError(self._broken)

    def _check_tokens(self, token_ids: Sequence[int], *, shortest: int) -> None:
        """One bad id would end the engine, and with it every other request."""
        if not shortest <= len(token_ids) < self._max_model_len:
            raise ValueError(
                f"{len(token_ids)} tokens where {shortest} to {self._max_model_len - 1} fit; raise max_model_len"
            )
        if min(token_ids) < 0 or max(token_ids) >= self._vllm.vocab_size:
            raise ValueError(
                f"token ids {min(token_ids)} to {max(token_ids)} do not fit a vocabulary of {self._vllm.vocab_size}; "
                "encode with this model's tokenizer"
            )
