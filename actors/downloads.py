"""Weights out of the broker, for an actor that cannot see the learner's folder: fetched beside sampling."""

from __future__ import annotations

from pathlib import Path

import structlog

from actors.relaying import Relaying
from common.background import Background
from common.errors import WeightsError
from common.lifecycle import Every
from common.schema import Policy
from common.weights.fetch import Gone, fetch
from common.weights.store import WANTED_MS, WeightStore

LOOK_EVERY_S = 0.05
FAILURES = 5
"""Versions in a row that are not what was announced, after which this actor gives up."""

log = structlog.get_logger("actor")


class Downloads:
    """`newest` is the newest policy whose weights are on this host; a thread fetches them until `close`."""

    def __init__(self, store: WeightStore, root: Path, *, relay: bool = False) -> None:
        """`relay`: gives what is here to other hosts."""
        self._store, self._root = store, root
        self._relaying = Relaying(store, root) if relay else None
        self._newest: Policy | None = None
        self._failures = 0
        self._ask = Every(WANTED_MS / 3000)
        self._background = Background("downloading", self._run)
        self._background.start()

    @property
    def newest(self) -> Policy | None:
        """Its folders are here. Raises what has ended the thread: WeightsError after FAILURES."""
        self._background.check()
        return self._newest

    def close(self) -> None:
        """Ends the thread after the chunk at hand."""
        self._store.stop.set()  # else it would wait for a broker that is away
        self._background.close()
        if self._relaying:
            self._relaying.close()

    def _run(self) -> None:
        while self._go_on():
            here = self._newest and (self._newest.incarnation, self._newest.step)
            waits = self._failures and self._store.anew_is_wanted()  # what is there is still what was of no use
            if waits or self._store.at() in (None, here) or not self._follow():
                self._background.closed.wait(LOOK_EVERY_S)

    def _go_on(self) -> bool:
        if self._ask.due():
            self._store.want()
        if self._newest and self._relaying:
            self._relaying.look()
        return not self._background.closed.is_set()

    def _follow(self) -> bool:
        """Fetches the newest version; False when that is to be tried again later."""
        carried = self._store.carried()
        if carried is None:
            return False
        try:
            fetched = fetch(self._store, carried, self._root, self._go_on)
        except Gone:
            return False
        except WeightsError as error:
            self._failures += 1
            log.warning("what was fetched is not what was announced", failures=self._failures, why=str(error))
            if self._failures >= FAILURES:
                raise WeightsError(
                    f"{FAILURES} versions in a row are not what was announced, the last: {error}"
                ) from error
            self._store.want("anew")
            return False
        self._failures = 0
        self._newest = fetched
        return True
