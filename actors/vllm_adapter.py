"""The calls into vLLM: another version changes it, `actors.weight_load` and `actors.cpu_*` alone.

Run on 0.32 CPU, written for 0.25.1 CUDA as well. vLLM is imported when an adapter is made, never by importing this.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from actors.cpu_linear import pad_small_linears
from actors.cpu_slots import skip_idle_allocations

if TYPE_CHECKING:
    from actors.engine import EngineOptions

CPU_BLOCK_TOKENS = 32
"""The smallest block of keys and values that attention on a CPU takes. The completions of a group share the full blocks
of their prompt, and vLLM's own 128 tokens are longer than many a prompt."""


@dataclass(slots=True)
class Output:
    """What one request has brought so far."""

    key: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of each token
    prompt_logprobs: list[float] = field(default_factory=list)  # of the prompt's second token to its last, if wanted
    finish_reason: str = ""  # vLLM's "stop", "length", "abort", ...; empty while it runs


class VllmAdapter:
    """The calls into vLLM, one method each, so that another version changes this class alone."""

    def __init__(self, options: EngineOptions) -> None:
        on_cpu = prepare_process(options)
        if on_cpu:
            pad_small_linears()
        from vllm import SamplingParams
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self._params = SamplingParams
        self._llm: Any = LLMEngine.from_engine_args(
            EngineArgs(
                model=options.model,
                dtype=cast(Any, options.dtype),  # vLLM checks the name
                max_model_len=options.max_model_len,
                max_num_seqs=options.max_num_seqs,
                kv_cache_memory_bytes=int(options.kv_cache_gib * 2**30) if on_cpu else None,
                gpu_memory_utilization=options.gpu_memory_utilization,
                tensor_parallel_size=options.tensor_parallel,
                distributed_executor_backend="uni" if options.tensor_parallel == 1 else "mp",
                enforce_eager=on_cpu,  # on CUDA compiled and graphed
                seed=options.seed,
                trust_remote_code=options.trust_remote_code,
                enable_prefix_caching=True,
                block_size=CPU_BLOCK_TOKENS if on_cpu else None,
                worker_extension_cls="actors.weight_load.PolicyLoader",
                # The learner recomputes exactly these: no sampling defaults of the model folder (its EOS list still
                # holds), and log-probabilities after temperature and top_p.
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                # Else a step in flight during an update would bring tokens of the old weights after it.
                async_scheduling=False,
                scheduling_policy="priority",  # prompt_logprobs goes first
                disable_log_stats=True,
                use_tqdm_on_load=False,
            )
        )
        self._client: Any = self._llm.engine_core  # in process: its calls are the core's own
        if on_cpu:
            skip_idle_allocations(self._core)
        self._tasks = self._llm.get_supported_tasks()
        self._running: dict[str, Output] = {}
        self.tokenizer: Any = self._llm.get_tokenizer()
        config = self._llm.model_config
        self.vocab_size: int = config.get_vocab_size()
        self.tied: bool = bool(getattr(config.hf_text_config, "tie_word_embeddings", False))

    def sampling_params(self, **settings: Any) -> Any:
        return self._params(detokenize=False, **settings)

    def add(self, keys: Sequence[str], token_ids: Sequence[int], params: Any, *, first: bool = False) -> None:
        """Queue one completion of the prompt for each key; vLLM checks and prepares the request once for all."""
        prompt = {"type": "token", "prompt_token_ids": list(token_ids)}
        request = self._llm.input_processor.process_inputs(
            keys[0], prompt, params, supported_tasks=self._tasks, priority=-1 if first else 0
        )
        for key in keys:
            clone = copy(request)
            clone.request_id = key
            self._running[key] = Output(key)
            self._client.add_request(clone)

    def step(self) -> list[Output]:
        """One iteration of vLLM's core; returns the requests that ended in it.

        The core says what it sampled and what has ended (all but stop strings, which are not used). LLMEngine.step
        would pass every token of every request through detokenizers and output objects, a fifth of the CPU time of a
        small policy.
        """
        ended = []
        for news in self._client.get_output().outputs:
            output = self._running[news.request_id]
            output.token_ids += news.new_token_ids
            if news.new_logprobs is not None:
                output.logprobs += news.new_logprobs.logprobs[:, 0].tolist()
            if news.new_prompt_logprobs_tensors is not None:
                output.prompt_logprobs += news.new_prompt_logprobs_tensors.logprobs[:, 0].tolist()
            if news.finish_reason is not None:
                output.finish_reason = str(news.finish_reason)
                ended.append(self._running.pop(news.request_id))
        return ended

    def abort(self, keys: Sequence[str]) -> None:
        """Drop requests with what they brought; unknown keys are ignored."""
        known = [key for key in keys if self._running.pop(key, None)]
        self._client.abort_requests(known)

    def output_counts(self) -> dict[str, int]:
        """Tokens sampled so far, by the key of every unfinished request."""
        return {key: len(output.token_ids) for key, output in self._running.items()}

    def pause(self) -> None:
        """Put running requests back in the queue with their tokens and forget every key and value.

        With the caches kept, later tokens would follow neither the old policy nor the new one.
        """
        self._core.pause_scheduler(mode="keep", clear_cache=True)

    def resume(self) -> None:
        self._core.resume_scheduler()

    def load(self, files: list[str], adapters: str | None, scale: float) -> None:
        self._llm.collective_rpc("load_policy", args=(files, adapters, scale))

    def close(self) -> None:
        self._client.shutdown()

    @property
    def _core(self) -> Any:
        return self._client.engine_core  # neither LLMEngine nor its client has a pause


def prepare_process(options: EngineOptions) -> bool:
    """Set what vLLM reads from the environment, before its first import; returns whether this runs on a CPU."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # its start-up warnings are about choices made here
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    # Two OpenMP processes that spin while they wait slow each other down 70-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # vLLM looks through torch.distributed for names and meets a deprecated one.
    warnings.filterwarnings("ignore", category=FutureWarning, message=r".*reduce_op. is deprecated")
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        torch.set_num_threads(options.threads)
    return on_cpu
