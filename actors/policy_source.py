"""Where an actor's weights come from: the learner's folder where it can be read, else the broker, or a ring."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, Protocol

import structlog

from actors.downloads import Downloads
from actors.join import fetched_folder
from common.schema import Policy
from common.settings import Sections
from common.streams import Broker
from common.weights import folder
from common.weights.store import WeightStore

log = structlog.get_logger("actor")


class Source(Protocol):
    """One way to new weights."""

    def newest(self) -> Policy | None:
        """The newest policy; its folder is to be read here. None before the first."""

    def close(self, *, over: bool) -> None:
        """Ends what it runs; `over`: nobody on this host needs what was fetched any more."""


class Shared:
    """The learner's folder: a shared file system, or shared memory on one host."""

    def __init__(self, _: Sections, broker: Broker) -> None:
        self._broker = broker
        self._newest: Policy | None = None

    def newest(self) -> Policy | None:
        announced = self._broker.announced()  # a few bytes: it is asked for all the time
        if announced and (self._newest is None or announced != (self._newest.incarnation, self._newest.step)):
            self._newest = self._broker.policy()
        return self._newest if announced else None

    def close(self, *, over: bool) -> None:
        """Nothing runs, and nothing was fetched."""


class Carried:
    """The broker: what `Downloads` fetches of it."""

    def __init__(self, settings: Sections, broker: Broker) -> None:
        store = WeightStore(settings.weights.url or broker.url, broker.run, "actor")
        self._root = fetched_folder(settings, broker.run)
        self._downloads = Downloads(store, self._root, relay=settings.weights.relay)

    def newest(self) -> Policy | None:
        return self._downloads.newest

    def close(self, *, over: bool) -> None:
        self._downloads.close()
        if over:
            shutil.rmtree(self._root, ignore_errors=True)


class InRing:
    """The learner's broadcasts: what `RingReceiver` gets of them, into a folder of this process's own."""

    def __init__(self, settings: Sections, broker: Broker) -> None:
        from actors.ring import RingReceiver

        self._root = fetched_folder(settings, broker.run).with_name(f"{broker.run}-{broker.consumer}")
        self._receiver = RingReceiver(WeightStore(broker.url, broker.run, "actor"), self._root)

    def newest(self) -> Policy | None:
        return self._receiver.newest

    def close(self, *, over: bool) -> None:
        self._receiver.close()
        shutil.rmtree(self._root, ignore_errors=True)


class PolicySource:
    """The one that [actor] names; unless it does, the folder, and the broker from when on that cannot be read."""

    def __init__(self, settings: Sections, broker: Broker) -> None:
        self._settings, self._broker = settings, broker
        given = settings.actor.weights_from
        self.kind: Literal["folder", "broker", "ring"] = "folder" if given == "auto" else given
        self._source: Source = {"folder": Shared, "broker": Carried, "ring": InRing}[self.kind](settings, broker)

    def newest(self) -> Policy | None:
        """As that of the source."""
        newest = self._source.newest()
        if newest and self._settings.actor.weights_from == "auto" and self.kind == "folder" and not _is_there(newest):
            latest = self._broker.policy()
            if latest is None or latest.folder != newest.folder:  # it was removed: a newer one is announced
                return newest
            log.warning("the learner's folder cannot be read here, weights come from the broker", folder=newest.folder)
            self.kind, self._source = "broker", Carried(self._settings, self._broker)
            return None
        return newest

    def close(self, *, over: bool) -> None:
        self._source.close(over=over)


def _is_there(policy: Policy) -> bool:
    return (Path(policy.folder) / folder.FILE).is_file()
