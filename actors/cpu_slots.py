"""Room for the next token: vLLM's scheduler asks for it at every token, and nearly always there is some left.

Keys and values lie in blocks of 32 tokens on a CPU. A sequence needs a new block at every 32nd token and enters a full
one into the prefix cache as often; in between vLLM goes through all its checks to find nothing to do. For a small
policy that is a tenth of the CPU time of sampling.
"""

from __future__ import annotations

from typing import Any


def skip_idle_allocations(core: Any) -> None:
    """Answer for vLLM's cache manager while a sequence's last block has room for one more token and then is not full.

    core: vLLM's EngineCore. Only where all layers attend to all that is before: a window moves at every token.
    """
    from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

    manager = core.scheduler.kv_cache_manager
    managers = manager.coordinator.single_type_managers
    if len(managers) != 1 or type(managers[0]) is not FullAttentionManager:
        return
    last = managers[0].block_size - 1
    allocate, nothing_new = manager.allocate_slots, manager.empty_kv_cache_blocks

    def allocate_slots(request: Any, num_new_tokens: int, **more: Any) -> Any:
        # A sequence that has computed tokens is running, and has a block for the last of them.
        if num_new_tokens == 1 and 0 < request.num_computed_tokens % (last + 1) < last and not any(more.values()):
            return nothing_new
        return allocate(request, num_new_tokens, **more)

    manager.allocate_slots = allocate_slots
