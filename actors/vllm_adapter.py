"""The calls into vLLM, so that another version changes this module (and `actors.weight_load`) alone.

Run on 0.32 CPU, written for 0.25.1 CUDA as well. vLLM is imported when an adapter is made, never by importing this.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from actors.engine import EngineOptions


class VllmAdapter:
    """The calls into vLLM, one method each, so that another version changes this class alone."""

    def __init__(self, options: EngineOptions) -> None:
        on_cpu = prepare_process(options)
        from vllm import SamplingParams
        from vllm.engine.arg_utils import EngineArgs
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.llm_engine import LLMEngine

        self._params = SamplingParams
        self._final_only = RequestOutputKind.FINAL_ONLY
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
                enforce_eager=on_cpu if options.enforce_eager is None else options.enforce_eager,
                seed=options.seed,
                trust_remote_code=options.trust_remote_code,
                enable_prefix_caching=options.prefix_caching,
                worker_extension_cls="actors.weight_load.PolicyLoader",
                # The learner recomputes exactly these: no sampling defaults of the model folder (its EOS list still
                # holds), and log-probabilities after temperature, top_p and top_k.
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                # Else a step in flight during an update would bring tokens of the old weights after it.
                async_scheduling=False,
                scheduling_policy="priority",  # prompt_logprobs goes first
                disable_log_stats=True,
                use_tqdm_on_load=False,
            )
        )
        self.tokenizer: Any = self._llm.get_tokenizer()
        config = self._llm.model_config
        self.vocab_size: int = config.get_vocab_size()
        self.tied: bool = bool(getattr(config.hf_text_config, "tie_word_embeddings", False))

    def sampling_params(self, **settings: Any) -> Any:
        return self._params(output_kind=self._final_only, detokenize=False, flat_logprobs=True, **settings)

    def add(self, key: str, token_ids: Sequence[int], params: Any, *, first: bool = False) -> None:
        prompt = {"type": "token", "prompt_token_ids": list(token_ids)}
        self._llm.add_request(key, prompt, params, priority=-1 if first else 0)

    def step(self) -> list[tuple[str, Any]]:
        return [(output.request_id, output) for output in self._llm.step()]

    def abort(self, keys: list[str]) -> None:
        self._llm.abort_request(keys)

    def output_counts(self) -> dict[str, int]:
        """Tokens sampled so far, by the key of every unfinished request."""
        states = self._llm.output_processor.request_states.values()
        return {state.external_req_id: state.detokenizer.num_output_tokens() for state in states}

    def pause(self) -> None:
        """Put running requests back in the queue with their tokens and forget every key and value.

        With the caches kept, later tokens would follow neither the old policy nor the new one.
        """
        self._core.pause_scheduler(mode="keep", clear_cache=True)

    def resume(self) -> None:
        self._core.resume_scheduler()

    def load(self, files: list[str]) -> None:
        self._llm.collective_rpc("load_policy", args=(files,))

    def close(self) -> None:
        self._llm.engine_core.shutdown()

    @property
    def _core(self) -> Any:
        return self._llm.engine_core.engine_core  # LLMEngine itself has no pause


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
