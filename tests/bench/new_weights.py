"""What new weights cost an actor: tokens/s with an update every PERIOD_S / with none, by `actor.on_new_weights`.

The policy's tensors are the same in every version, so that completions are as long in every round; the engine does not
know. Tokens count that were handed over in whole groups: what `abort` throws away does not. The quickstart's policy, a
completion of which takes about PERIOD_S here.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.engine import Engine, EngineOptions
from common.families import PHRASES
from common.server import LocalServer
from learner import small_model
from tests.bench.actor import COMPLETIONS, GROUPS, GROUPS_IN_FLIGHT, MAX_MODEL_LEN, ThroughActor
from tests.make import published_model

PERIOD_S = 0.5
ROUNDS = 5
WAYS = {"keep": 0.8, "finish": 0.5, "abort": 0.3}
"""With the share of tokens/s that has to be left."""


def run() -> list[dict[str, Any]]:
    """`ratio` of each: median over interleaved rounds."""
    rates: dict[str, list[float]] = {"none": [], **{way: [] for way in WAYS}}
    updates: dict[str, int] = dict.fromkeys(rates, 0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = folder / "model"
        small_model.create(model, 0, max_tokens=MAX_MODEL_LEN, phrases=PHRASES)
        options = EngineOptions(str(model), max_model_len=MAX_MODEL_LEN, max_num_seqs=GROUPS_IN_FLIGHT * COMPLETIONS)
        with LocalServer(folder / "broker", memory_mb=512) as server:
            engine = Engine(options, version=0)
            actors = {
                way: ThroughActor(engine, model, server.url, way, on_new_weights="keep" if way == "none" else way)
                for way in rates
            }
            for one in actors.values():  # first calls
                one.prepare(0, GROUPS_IN_FLIGHT)()
            for turn in range(1, ROUNDS + 1):
                for way, one in actors.items():
                    sample = one.prepare(turn, GROUPS)
                    with _updates(one, folder / way, model, way != "none") as made:
                        started = time.perf_counter()
                        tokens = sample()
                        rates[way].append(tokens / (time.perf_counter() - started))
                    updates[way] += len(made)
            for one in actors.values():
                one.actor.close()
    return [_row(way, rates, updates[way]) for way in WAYS]


@contextmanager
def _updates(through: ThroughActor, root: Path, model: Path, any_at_all: bool) -> Iterator[list[int]]:
    """A new version every PERIOD_S; their steps."""
    made: list[int] = []
    over = threading.Event()
    first = int(time.monotonic() * 10)  # above the last round's

    def announce() -> None:
        while any_at_all and not over.wait(PERIOD_S):
            step = first + len(made)
            through.learner.announce(published_model(root, model, through.incarnation, step))
            made.append(step)

    thread = threading.Thread(target=announce)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join()


def _row(way: str, rates: dict[str, list[float]], updates: int) -> dict[str, Any]:
    ratio = statistics.median(ours / none for ours, none in zip(rates[way], rates["none"], strict=True))
    detail = {
        "tokens_per_s": round(statistics.median(rates[way])),
        "without_updates": round(statistics.median(rates["none"])),
        "updates": updates,
        "period_s": PERIOD_S,
    }
    name, target = f"new_weights_{way}", WAYS[way]
    return {"name": name, "ratio": round(ratio, 4), "target": target, "holds": ratio >= target, "detail": detail}
