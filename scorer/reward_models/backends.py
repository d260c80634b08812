"""From the settings to a reward model."""

from __future__ import annotations

import threading

from common.models import identity, local_folder
from common.settings import Sections
from scorer.reward_models.known import usage_of
from scorer.reward_models.protocol import RewardModel
from scorer.rewards import NEEDS_REWARD_MODEL


def make_reward_model(settings: Sections, stop: threading.Event | None = None) -> RewardModel | None:
    """The configured reward model; None where the mode needs none. `stop` ends the waits for a server.

    Raises ModelError with the remedy when there is no usable model.
    """
    r = settings.reward_model
    if settings.reward.mode not in NEEDS_REWARD_MODEL:
        return None
    served = r.backend == "http"  # whoever serves it has the weights
    folder = local_folder(r.model or "", "reward_model.model", r.revision, weights=not served)
    usage = usage_of(r.model or "", r.layout, r.system_prompt)
    # torch and transformers take seconds to import: each backend when it is asked for.
    if served:
        from scorer.reward_models.http import HttpClassifier
        from scorer.reward_models.rendering import load_tokenizer

        return HttpClassifier(
            r.url,
            tokenizer=load_tokenizer(folder, trust_remote_code=r.trust_remote_code),
            revision=r.revision,
            usage=usage,
            batch_tokens=r.batch_tokens,
            max_length=r.max_length,
            truncation=r.truncation,
            deadline_s=r.deadline_s,
            attempts=r.attempts,
            concurrency=r.concurrency,
            stop=stop,
        )
    name = identity(r.model or "", folder)
    if r.backend == "likelihood":
        from scorer.reward_models.likelihood import Likelihood

        return Likelihood(
            folder,
            name=name,
            system_prompt=usage.system_prompt,
            dtype=r.dtype,
            batch_tokens=r.batch_tokens,
            max_length=r.max_length,
            trust_remote_code=r.trust_remote_code,
        )
    from scorer.reward_models.classifier import Classifier

    return Classifier(
        folder,
        name=name,
        usage=usage,
        dtype=r.dtype,
        batch_tokens=r.batch_tokens,
        max_length=r.max_length,
        truncation=r.truncation,
        trust_remote_code=r.trust_remote_code,
    )
