"""An actor that comes with nothing but a broker's address: model, tokenizer and weights out of the broker."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import structlog

from common.errors import ModelError
from common.settings import Sections
from common.weights.definition import unpack
from common.weights.fetch import Gone, fetch
from common.weights.folder import FILE, default_folder
from common.weights.store import WeightStore

LOOK_EVERY_S = 0.5

log = structlog.get_logger("actor")


def definition_of(store: WeightStore, stop: threading.Event) -> dict[str, bytes]:
    """What the learner has put into the broker, once it has. Raises ModelError when it is told to stop before."""
    told = False
    while not stop.is_set():
        store.want()
        if found := store.definition():
            return found
        if not told:
            told = True
            log.info("waiting for the learner to put model and weights into the broker", run=store.run)
        stop.wait(LOOK_EVERY_S)
    raise ModelError(f"stopped before the learner of run {store.run} had put its model into the broker: is it alive?")


def model_from_broker(store: WeightStore, root: Path, stop: threading.Event) -> Path:
    """A model folder of the newest version, under `root`; the caller removes it. Raises as `definition_of`, `fetch`."""
    definition = definition_of(store, stop)
    while not stop.is_set():
        store.want()
        carried = store.carried()
        if carried:
            try:
                policy = fetch(store, carried, root, lambda: not stop.is_set())
                weights = Path(policy.frozen.folder if policy.frozen else policy.folder) / FILE
                return unpack(definition, weights, Path(tempfile.mkdtemp(prefix="model-", dir=root)))
            except (Gone, FileNotFoundError):  # there is a newer version
                continue
        stop.wait(LOOK_EVERY_S)
    raise ModelError(f"stopped before weights of run {store.run} were here")


def fetched_folder(settings: Sections, run_id: str) -> Path:
    """Where this host keeps what it fetches."""
    return settings.weights.cache or default_folder(f"{run_id}-fetched", settings.run.folder)
