"""How known reward models want to be asked, after what their authors document; every value is a setting, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Layout = Literal["chat", "pair"]
Truncation = Literal["none", "left"]


@dataclass(frozen=True)
class Usage:
    """`Usage("chat", "Please reason step by step.")`: what goes around question and completion."""

    layout: Layout = "chat"
    """chat: the model's own chat template, closed, without added special tokens. pair: the tokenizer's text pair."""
    system_prompt: str = ""


KNOWN = (
    # nvidia/AceMath-7B-RM, -72B-RM (arXiv:2412.15084): the system prompt that their chats were trained with.
    ("AceMath-.*RM", Usage("chat", "Please reason step by step, and check your final answer within \\boxed{}.")),
    # Skywork/Skywork-Reward-* and -V2-* (arXiv:2410.18451, 2507.01352): the plain chat, one beginning-of-text token.
    ("Skywork-Reward", Usage("chat")),
    # OpenAssistant/reward-model-deberta-v3-*: question and answer as a text pair, no template.
    ("reward-model-(deberta|electra)", Usage("pair")),
)


def usage_of(model: str, layout: Layout | None, system_prompt: str | None) -> Usage:
    """What is set, else what `model` (a hub name, or a folder named like it) documents, else a plain chat."""
    documented = next((usage for pattern, usage in KNOWN if re.search(pattern, model)), Usage())
    return Usage(
        documented.layout if layout is None else layout,
        documented.system_prompt if system_prompt is None else system_prompt,
    )
