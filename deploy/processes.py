"""The process of a child; of a learner with several ranks all of them, which are started, judged and ended together."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from common.errors import RankLost
from common.lifecycle import computing_environment, die_with_parent
from deploy.cores import current, keep_to

END_S = 20.0  # after the first rank: the others find out why, and end too


class Processes:
    """One process for each log file: rank 0, 1, ... of the same command."""

    def __init__(
        self,
        command: Sequence[str],
        threads: int,
        cores: set[int] | None,
        logs: Sequence[Path],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`environment`: what they have beside ours."""
        common = computing_environment(threads) | {"PYTHONUNBUFFERED": "1"} | environment
        port = _free_port()
        self._processes = [
            _spawn(command, common | (_launched(rank, len(logs), port) if len(logs) > 1 else {}), cores, log)
            for rank, log in enumerate(logs)
        ]
        self._first_end: float | None = None
        self._ended_by_us: set[int] = set()

    @property
    def pid(self) -> int:
        """Of rank 0."""
        return self._processes[0].pid

    def poll(self) -> int | None:
        """Exit code of the rank to `blame` once all have ended, which they must within END_S of the first."""
        running = [rank for rank, process in enumerate(self._processes) if process.poll() is None]
        if len(running) == len(self._processes):
            return None
        self._first_end = self._first_end or time.monotonic()
        if running:
            if time.monotonic() - self._first_end < END_S:
                return None
            self.kill()
        return self._processes[self.blame()].returncode

    def blame(self) -> int:
        """The rank that ended for a reason of its own; rank 0 without one. Of processes that have all ended."""
        own = [rank for rank in range(len(self._processes)) if rank not in self._ended_by_us]
        codes = {rank: self._processes[rank].returncode for rank in own}
        failed = [rank for rank, code in codes.items() if code not in (0, RankLost.exit_code)]
        lost = [rank for rank, code in codes.items() if code == RankLost.exit_code]
        return (failed + lost + own or [0])[0]

    def ask(self, signal: int) -> None:
        """Sends it to rank 0, which ends the others."""
        if self._processes[0].poll() is None:
            self._processes[0].send_signal(signal)

    def wait(self, deadline: float) -> None:
        """Until all have ended; subprocess.TimeoutExpired after `deadline` (monotonic)."""
        for process in self._processes:
            process.wait(max(0.1, deadline - time.monotonic()))

    def kill(self) -> None:
        for rank, process in enumerate(self._processes):
            if process.poll() is None:
                self._ended_by_us.add(rank)
                process.kill()
        for process in self._processes:
            process.wait()


def _launched(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would set for ranks of one machine, which talk over its loopback alone."""
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {name: str(value) for name, value in found.items()} | loopback


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _spawn(
    command: Iterable[str], environment: dict[str, str], cores: set[int] | None, log_file: Path
) -> subprocess.Popen[bytes]:
    with log_file.open("ab") as out, keep_to(cores or current()):
        return subprocess.Popen(
            [*command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            preexec_fn=die_with_parent,
            start_new_session=True,  # Ctrl-C reaches us alone; we forward it as a drain
        )
