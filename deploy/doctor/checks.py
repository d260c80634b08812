"""All checks by name, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from deploy.doctor.apart import Apart
from deploy.doctor.broker import broker, weights_broker
from deploy.doctor.broker_memory import broker_memory
from deploy.doctor.case import Case
from deploy.doctor.data import data
from deploy.doctor.devices import devices
from deploy.doctor.finding import Finding
from deploy.doctor.folders import run_folder, weights_folder
from deploy.doctor.host import host
from deploy.doctor.models import policy
from deploy.doctor.ports import ports
from deploy.doctor.reward_model import reward_model
from deploy.doctor.rights import rights
from deploy.doctor.versions import versions

DEADLINE_S = 180.0
"""Some import torch, ask a hub, read data, wait for a server that is silent: on a busy machine that takes minutes."""

CHECKS: dict[str, Callable[[Case], Iterator[Finding]]] = {
    "broker": broker,
    "rights": rights,
    "broker_memory": broker_memory,
    "weights_broker": weights_broker,
    "host": host,
    "run_folder": run_folder,
    "weights_folder": weights_folder,
    "ports": ports,
    "versions": versions,
    "devices": devices,
    "policy": policy,
    "reward_model": reward_model,
    "data": data,
}


def examine(case: Case, names: Sequence[str]) -> Iterator[Finding]:
    """What these checks find, told in the order of CHECKS; they are all begun at once."""
    begun = [Apart(name, partial(look, case), DEADLINE_S) for name, look in CHECKS.items() if name in names]
    for one in begun:
        yield from one.findings()
