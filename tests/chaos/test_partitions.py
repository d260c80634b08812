"""Partitions short enough for every change; `python -m tests.chaos.partitions` is the long run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.audit import FINDINGS
from tests.chaos.hosts import Host, Network, NoNetwork, listen, require
from tests.chaos.network_faults import LONGEST_S, SHORTEST_S, NetworkFaults
from tests.chaos.partitions import partitions


@pytest.fixture
def _network() -> None:
    """Root, `ip` and `nft`: skipped without root at home, a failure otherwise."""
    try:
        require()
    except NoNetwork as error:
        if os.geteuid() == 0 or "CI" in os.environ:
            raise
        pytest.skip(str(error))


CONNECT = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], 7000), 1); "
    "s.settimeout(None); s.send(b'here'); s.recv(1)"  # it stays until it is killed
)


def connect(source: Host, target: Host) -> subprocess.Popen[bytes]:
    command = [*source.inside, sys.executable, "-c", CONNECT, target.address]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


@pytest.mark.usefixtures("_network")
def test_a_host_that_is_cut_off_or_vanishes_is_silent() -> None:
    with Network() as network:
        first, second = network.add("first"), network.add("second")
        listening = listen(second, 7000)
        for way in ((first, second), (second, first)):
            network.cut(*way)
            assert b"timed out" in connect(first, second).communicate()[1], "nobody refuses it"
            network.heal(*way)
        listening.settimeout(60)
        process = connect(first, second)
        connection = listening.accept()[0]
        connection.settimeout(60)
        assert connection.recv(4) == b"here"
        network.vanish(first)
        process.wait(60)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(1)  # neither an end nor a reset
    assert not any(first.namespace in name for name in os.listdir("/run/netns"))


@pytest.mark.timeout(900)  # a minute on two quiet cores
@pytest.mark.usefixtures("_network")
def test_no_ticket_is_lost_or_trained_twice_across_partitions(tmp_path: Path) -> None:
    result = partitions(tmp_path, seed=10, minutes=0.6)
    assert result["partitions"] >= 1 and result["steps"] >= 3
    assert [name for name in FINDINGS if result[name]] == []
    assert result["issued"] == sum(result[name] for name in ("trained", "dropped", "dead_lettered", "in_flight"))
    assert result["trained"] == 4 * result["steps"]


def test_the_same_seed_gives_the_same_faults() -> None:
    first, again = (NetworkFaults(7, "broker", ["learner", "actor-0", "scorer-0"]) for _ in range(2))
    faults = [first.next() for _ in range(300)]
    assert faults == [again.next() for _ in range(300)]
    parted = [fault for fault in faults if fault.kind == "partition"]
    assert all(SHORTEST_S <= fault.seconds <= LONGEST_S and len(set(fault.between)) == 2 for fault in parted)
    assert {fault.one_way for fault in parted} == {True, False}
    assert {fault.between[::-1] for fault in parted} & {fault.between for fault in parted}, "both directions"
