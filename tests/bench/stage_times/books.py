"""What a group takes in the learner beside training: its own logs, and all that the broker takes."""

from __future__ import annotations

import resource
import statistics
import time

from common.settings import Sections
from learner.json_lines import lines_by_step
from tests.bench import transport
from tests.bench.stages import Group


def measure(settings: Sections, groups: list[Group]) -> dict[str, float]:
    """learner_group_s. The server's CPU-seconds are in it, and those of packing on all sides."""
    size = settings.learner.groups_per_step
    lines = lines_by_step(settings.run.folder / "metrics.jsonl")
    log_s = statistics.median(line["seconds"]["log"] for line in lines)
    batch = transport.Batch(
        groups=size,
        completions=settings.sampling.completions,
        tokens=round(statistics.mean(c["tokens"] for g in groups for c in g["completions"])),
        scorer_groups=settings.scorer.batch_groups,
        question=max((group["question"] for group in groups), key=len),
        meta=groups[0]["meta"],
    )
    begun = _cpu_s()
    transport.seconds_per_batch(batch)
    return {"learner_group_s": (log_s + (_cpu_s() - begun) / transport.BATCHES) / size}


def _cpu_s() -> float:
    """Of this process and of its children that have ended, as the server has by now."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime
