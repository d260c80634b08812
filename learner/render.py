"""Questions to prompts, in the policy's own tokens. The learner renders; actors get token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ModelError
from common.schema import Int32


class Renderer:
    """`Renderer(folder, "Be brief.").prompt_ids("12 + 30 = ?")` gives int32 [P]."""

    def __init__(self, model_folder: Path, system_prompt: str, trust_remote_code: bool = False) -> None:
        from transformers import AutoTokenizer

        self.folder = model_folder
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{model_folder} has no usable tokenizer: {error}") from error
        if not self.tokenizer("1 + 1 = 2")["input_ids"]:  # transformers makes an empty one where there are no files
            raise ModelError(f"{model_folder} has no usable tokenizer: it reads nothing; copy the model's own files")
        self._system_prompt = system_prompt

    def prompt_ids(self, question: str) -> Int32:
        """The chat prompt up to where the assistant begins; plain text and a newline without a chat template."""
        if self.tokenizer.chat_template is None:
            text = "".join(f"{part}\n" for part in (self._system_prompt, question) if part)
            return np.asarray(self.tokenizer(text)["input_ids"], dtype=np.int32)
        messages = [{"role": "system", "content": self._system_prompt}] if self._system_prompt else []
        messages.append({"role": "user", "content": question})
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
