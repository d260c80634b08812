"""All checks, in the order in which they are told: name, what looks, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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

SHORT_S, LONG_S = 60.0, 180.0
"""The long ones import torch, ask a hub, read data: on a busy machine that takes minutes."""


@dataclass(frozen=True)
class Check:
    look: Callable[[Case], Iterator[Finding]]
    deadline_s: float = SHORT_S


CHECKS = {
    "broker": Check(broker),
    "rights": Check(rights),
    "broker-memory": Check(broker_memory),
    "weights-broker": Check(weights_broker),
    "host": Check(host, LONG_S),
    "run-folder": Check(run_folder, LONG_S),
    "weights-folder": Check(weights_folder, LONG_S),
    "ports": Check(ports),
    "versions": Check(versions),
    "devices": Check(devices, LONG_S),
    "policy": Check(policy, LONG_S),
    "reward-model": Check(reward_model, LONG_S),
    "data": Check(data, LONG_S),
}


def examine(case: Case, names: Sequence[str]) -> Iterator[Finding]:
    """What these checks find, told in this order; they are all begun at once."""
    begun = [Apart(name, _look(CHECKS[name], case), CHECKS[name].deadline_s) for name in names]
    for one in begun:
        yield from one.findings()


def _look(check: Check, case: Case) -> Callable[[], Iterator[Finding]]:
    return lambda: check.look(case)
