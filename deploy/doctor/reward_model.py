"""The reward model: that it is one, that it reads what is sampled, and that a server behind `http` serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import HeroError, ModelError
from common.models import check_vocabulary
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, ok, skipped, told, warning
from deploy.doctor.models import brings_code
from deploy.doctor.shapes import reward_model_folder
from scorer.reward_models.known import usage_of
from scorer.reward_models.rendering import encode, load_tokenizer
from scorer.rewards import NEEDS_REWARD_MODEL

SERVER_S = 10.0


def reward_model(case: Case) -> Iterator[Finding]:
    settings, check = case.settings, "reward_model"
    if "scorer" not in case.roles:
        yield skipped(check, "the scorers have it")
        return
    if settings.reward.mode not in NEEDS_REWARD_MODEL:
        yield skipped(check, f'reward.mode = "{settings.reward.mode}" needs none')
        return
    if not settings.reward_model.model and not case.configured:
        yield skipped(check, "reward_model.model is not set: a run needs a file of settings")
        return
    folder = reward_model_folder(case)
    if settings.reward_model.trust_remote_code and brings_code(folder):
        yield warning(check, f"{folder} brings code of its own, which was not run here", "look at it before you do")
        return
    try:
        tokenizer = load_tokenizer(folder)
        yield from _asked(tokenizer, case, folder)
        yield from _by_backend(tokenizer, case, folder)
    except HeroError as problem:
        yield told(check, problem)


def _asked(tokenizer: Any, case: Case, folder: Path) -> Iterator[Finding]:
    """Whether question and completion can be put to it. Raises ModelError."""
    r = case.settings.reward_model
    usage = usage_of(r.model or "", r.layout, r.system_prompt)
    length = len(encode(tokenizer, [("12 + 30 = ?", "It is \\boxed{42}")], usage)[0])
    yield ok("reward_model.layout", f"{usage.layout}: a short question and answer are {length} tokens")


def _by_backend(tokenizer: Any, case: Case, folder: Path) -> Iterator[Finding]:
    r = case.settings.reward_model
    if r.backend == "http":
        yield from _server(tokenizer, case)
        return
    from transformers import AutoConfig  # seconds
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as problem:  # transformers raises a dozen unrelated kinds
        raise ModelError(f"{folder} has no usable config.json: {problem}; copy the model's own files") from problem
    if r.backend == "classifier":
        from scorer.reward_models.classifier import check_labels

        check_labels(folder, config)
        yield ok("reward_model", f"{r.model}: {'/'.join(config.architectures or ['?'])} with one label")
    elif config.model_type in CAUSAL:
        yield ok("reward_model", f"{r.model}: {type(config).__name__}, for the likelihood of the gold answer")
    else:
        raise ModelError(f"{folder} is a {config.model_type}, no causal model; the likelihood needs one")
    text = config.get_text_config()
    highest = check_vocabulary(folder, tokenizer.get_vocab(), text.vocab_size)
    yield ok("reward_model.tokens", f"token ids up to {highest:,}, {text.vocab_size:,} embeddings")
    yield length(case, getattr(text, "max_position_embeddings", None))


def length(case: Case, positions: int | None) -> Finding:
    """By the policy's tokens: the reward model's own may be more."""
    s = case.settings
    longest = min(s.reward_model.max_length, positions or s.reward_model.max_length)
    sampled = s.data.max_prompt_tokens + s.sampling.max_tokens
    found = f"it reads {longest:,} tokens (reward_model.max_length {s.reward_model.max_length:,}"
    found += f", the model has {positions:,})" if positions else ")"
    if sampled <= longest:
        return ok("reward_model.length", f"{found}, prompt and completion take {sampled:,} at most")
    remedy = "raise reward_model.max_length as far as the model goes, or lower sampling.max_tokens"
    what = f"{found}, prompt and completion up to {sampled:,}: longer ones are not scored (context_overflow)"
    return warning("reward_model.length", what, remedy)


def _server(tokenizer: Any, case: Case) -> Iterator[Finding]:
    """One sample is scored by it. Raises ModelError."""
    from scorer.reward_models.http import HttpClassifier

    r = case.settings.reward_model
    server = HttpClassifier(
        r.url,
        tokenizer=tokenizer,
        usage=usage_of(r.model or "", r.layout, r.system_prompt),
        batch_tokens=r.batch_tokens,
        max_length=r.max_length,
        deadline_s=min(SERVER_S, r.deadline_s),
        attempts=1,
        concurrency=1,
    )
    server.close()
    yield ok("reward_model", f"{r.url} scores, up to {server.max_length:,} tokens")
    if same_name(server.name, r.model or ""):
        yield ok("reward_model.name", f"it serves {server.name}")
    else:
        found = f"it serves {server.name}, reward_model.model is {r.model}: of that is the tokenizer"
        yield warning("reward_model.name", found, "set reward_model.model to what the server was started with")
    yield length(case, server.max_length)


def same_name(served: str, model: str) -> bool:
    """A server may call its model by the last part of its name."""
    return Path(served).name == Path(model).name
