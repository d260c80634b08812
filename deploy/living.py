"""A run to look at: named by its id or its folder, or the only one that a broker has."""

from __future__ import annotations

from common.connection import runs_at
from common.errors import QueueError
from common.server import configured_url
from common.streams import Broker
from deploy.run_folder import id_and_url


def broker_of(run: str | None, url: str | None, role: str, kind: type[Broker] = Broker) -> Broker:
    """Raises QueueError when there is no such run, BrokerUnavailable."""
    if run is None:
        address = configured_url(url)
        if address is None:
            raise QueueError("which run? give --run, or --url or REDIS_URL of a broker that has a single one")
        run = _only_run(address)
    run_id, url = id_and_url(run, url)
    broker = kind(url, run_id, role)
    broker.fit()
    if not broker.begun():
        raise QueueError(f"the broker at {broker.shown} knows no run {run_id}; run.json in its folder has the id")
    return broker


def _only_run(url: str) -> str:
    runs = runs_at(url)
    if len(runs) != 1:
        raise QueueError(f"which run? give --run; the broker has {', '.join(runs[:10]) or 'none'}")
    return runs[0]
