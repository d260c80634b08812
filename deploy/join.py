"""Settings for an actor that is given no file: those that the actors of a run share, out of its broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from actors.join import LOOK_EVERY_S, definition_of
from common import config
from common.address import shown
from common.connection import runs_at
from common.errors import ConfigError
from common.server import needed_url
from common.settings import Sections
from common.weights.definition import shared_settings
from common.weights.store import WeightStore

log = structlog.get_logger("actor")


def settings_of_run(flags: Sequence[str], stop: threading.Event) -> Sections:
    """What the flags leave open is the run's; waits for one that has not begun. ConfigError when there are several."""
    own = config.load(None, flags)
    url = needed_url(own.broker.url)
    run_id = own.run.id or _only_run(url, stop)
    store = WeightStore(own.weights.url or url, run_id, "actor", stop=stop)
    store.fit()
    given = shared_settings(definition_of(store, stop))
    return config.load(None, flags, given | {"run": {"id": run_id}})


def _only_run(url: str, stop: threading.Event) -> str:
    told = False
    while not (runs := runs_at(url)) and not stop.wait(LOOK_EVERY_S):
        if not told:
            told = True
            log.info("waiting for a run to begin", broker=shown(url))
    if len(runs) != 1:
        raise ConfigError(f"which run? give --run.id; the broker has {', '.join(runs[:10]) or 'none yet'}")
    return runs[0]
