"""Models and devices of the predictions, each value with its source."""

from __future__ import annotations

from dataclasses import dataclass

from learner.flops import Shape, peak_flops

MODELS = {
    # config.json of huggingface.co/Qwen/Qwen3-4B-Base: 4.02 B parameters
    "Qwen3-4B": Shape(36, 2560, 32, 8, 128, 9728, 151936, tied=True),
    # config.json of huggingface.co/Qwen/Qwen3-32B: 32.8 B
    "Qwen3-32B": Shape(64, 5120, 64, 8, 128, 25600, 151936, tied=False),
    # nvidia/AceMath-7B-RM is a Qwen2.5-Math-7B with one label: config.json of huggingface.co/Qwen/Qwen2.5-Math-7B
    "AceMath-7B-RM": Shape(28, 3584, 28, 4, 128, 18944, 152064, tied=False),
}


@dataclass(frozen=True)
class Device:
    name: str
    memory_bytes: float
    memory_bytes_s: float

    @property
    def flops_s(self) -> float:
        """Dense bfloat16 peak."""
        peak = peak_flops(self.name)
        assert peak is not None
        return peak


DEVICES = {
    "H200": Device("H200", 141e9, 4.8e12),  # HBM3e; nvidia.com/en-us/data-center/h200
    "H100": Device("H100", 80e9, 3.35e12),  # SXM5, HBM3; nvidia.com/en-us/data-center/h100
}
