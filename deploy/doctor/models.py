"""The policy: configuration and tokenizer load and belong together, and prompts with completions fit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import HeroError, ModelError
from common.models import check_vocabulary
from common.settings import Sections
from common.weights.store import WeightStore
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, told, warning
from deploy.doctor.shapes import policy_folder

ALIKE = ("config.json", "tokenizer.json", "tokenizer_config.json")


def policy(case: Case) -> Iterator[Finding]:
    settings = case.settings
    if not case.roles & {"learner", "actor"}:
        yield skipped("policy", "a scorer has none")
        return
    if not settings.model.policy and (not case.configured or case.roles == {"actor"}):
        why = "model.policy is not set: an actor has it out of the broker, a run needs a file of settings"
        yield skipped("policy", why)
        return
    folder = policy_folder(case)
    if settings.model.trust_remote_code and brings_code(folder):
        yield warning("policy", f"{folder} brings code of its own, which was not run here", "look at it before you do")
        return
    try:
        config, renderer = read(folder, settings)
    except HeroError as problem:
        yield told("policy", problem)
        return
    yield ok("policy", f"{settings.model.policy}: {type(config).__name__}, {len(renderer.tokenizer):,} tokens")
    text = config.get_text_config()
    yield from vocabulary(renderer.tokenizer, text, folder)
    yield prompts(renderer)
    yield positions(text, settings)
    yield weights(folder)
    if case.url and "learner" not in case.roles:
        yield from as_in_the_broker(case, folder)


def read(folder: Path, settings: Sections) -> tuple[Any, Any]:
    """(configuration, renderer) of a policy, without running its code. Raises ModelError."""
    from transformers import AutoConfig  # seconds
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    from learner.render import Renderer

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as problem:  # transformers raises a dozen unrelated kinds
        raise ModelError(f"{folder} has no usable config.json: {problem}; copy the model's own files") from problem
    if config.model_type not in CAUSAL:
        raise ModelError(
            f"{folder} is a {config.model_type}, of which transformers has no causal language model; take another model"
        )
    return config, Renderer(folder, settings.data.system_prompt)


def vocabulary(tokenizer: Any, config: Any, folder: Path) -> Iterator[Finding]:
    """Every token has an embedding, and some token ends a completion."""
    try:
        highest = check_vocabulary(folder, tokenizer.get_vocab(), config.vocab_size)
        yield ok("policy.tokens", f"token ids up to {highest:,}, {config.vocab_size:,} embeddings")
    except ModelError as problem:
        yield told("policy.tokens", problem)
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    ids = [ends] if isinstance(ends, int) else list(ends or ())
    outside = [id for id in ids if not 0 <= id < len(tokenizer)]
    if not ids or outside == ids:
        found = f"no token ends a completion: eos_token_id is {ends}, the tokenizer has {len(tokenizer):,} tokens"
        remedy = "set eos_token_id in the model's config.json: else every completion is cut at sampling.max_tokens"
        yield error("policy.end", found, remedy)
    elif tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        found = f"config.json ends completions with {ids}, the tokenizer's end is {tokenizer.eos_token_id}"
        yield warning("policy.end", found, "set both alike, to the token that the chat template ends a turn with")
    else:
        yield ok("policy.end", f"{tokenizer.convert_ids_to_tokens(ids[0])} ends a completion")


def prompts(renderer: Any) -> Finding:
    """Whether a question becomes a prompt, by the code that makes the tickets."""
    try:
        ids = renderer.prompt_ids("12 + 30 = ?")
    except Exception as problem:  # jinja's and the template's own errors share no base
        found = f"the chat template refuses a prompt: {problem}"
        remedy = "a template without a system role needs data.system_prompt = ''; else take the model's own template"
        return error("policy.prompt", found, remedy)
    how = "no chat template, so as plain text" if renderer.tokenizer.chat_template is None else "by the chat template"
    return ok("policy.prompt", f"a short question is {len(ids)} tokens, {how}")


def positions(config: Any, settings: Sections) -> Finding:
    """Settings agree among themselves when they are read; here it is the model that has an end."""
    longest = getattr(config, "max_position_embeddings", None)
    length = settings.actor.max_model_len
    sampled = settings.data.max_prompt_tokens + settings.sampling.max_tokens
    found = f"prompt and completion take {sampled:,} tokens at most, actor.max_model_len is {length:,}"
    if longest is not None and max(length, sampled) > longest:
        remedy = f"set actor.max_model_len = {longest}, and data.max_prompt_tokens + sampling.max_tokens to no more"
        return error("policy.positions", f"{found}, the model has {longest:,} positions", remedy)
    return ok("policy.positions", f"{found}" + (f", the model has {longest:,}" if longest is not None else ""))


def weights(folder: Path) -> Finding:
    files = list(folder.glob("*.safetensors"))
    if files:
        return ok("policy.weights", f"{len(files)} safetensors file(s)")
    if folder.parent.name == "snapshots":  # the hub's cache
        return ok("policy.weights", "not here yet: the first process that needs them downloads them from the hub")
    return error("policy.weights", f"{folder} has no *.safetensors", "save the model with save_pretrained")


def as_in_the_broker(case: Case, folder: Path) -> Iterator[Finding]:
    """Whether this host's model is the one that the run's learner put into the broker, where it did."""
    once = threading.Event()
    once.set()  # it waits for nobody
    check = "policy.run"
    try:
        store = WeightStore(case.settings.weights.url or case.url or "", case.run_id, "doctor", stop=once)
        theirs = store.definition()
    except HeroError as problem:
        yield skipped(check, f"the broker was not asked for the run's model: {problem}")
        return
    if not theirs:
        yield skipped(check, f"the learner of run {case.run_id} has put no model into the broker to compare with")
    elif others := different(folder, theirs):
        found = f"{', '.join(others)} here differ from those of run {case.run_id}"
        yield error(check, found, "take the learner's model: tickets are in its tokens")
    else:
        yield ok(check, f"the same as that of run {case.run_id}")


def different(folder: Path, theirs: Mapping[str, bytes]) -> list[str]:
    """Names of files that both have, and not alike."""
    return [
        name
        for name in ALIKE
        if name in theirs and (folder / name).is_file() and (folder / name).read_bytes() != theirs[name]
    ]


def brings_code(folder: Path) -> bool:
    """Whether transformers would run code of the model's own, if it were let."""
    return any(folder.glob("*.py")) or "auto_map" in (folder / "config.json").read_text(
        encoding="utf-8", errors="replace"
    )
