"""The ranks of a learner: joined and agreed at start, given orders by rank 0, ended together.

Whoever is lost ends all: a rank that waits in a collective for one that is gone would wait for half an hour. So the
last words of a rank, or the end of a connection, end this process from whatever it does, with RankLost's exit code.
"""

from __future__ import annotations

import hmac
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from common.errors import ConfigError, HeroError, RankLost
from common.settings import Sections
from learner import agreement, distributed
from learner.links import Link, Message, receive, send, serve

START_S = 120.0  # for all to connect, once they have joined the group
BLAME_S = 5.0  # for the news of another's end, which may be why a collective failed
END_S = 30.0
HELLO_BYTES = 2**20

_TOKEN_BYTES = 16


class Ranks:
    """This rank and its connections: rank 0 has one to each of 1, 2, ..., every other has one, to rank 0."""

    def __init__(self, rank: int, links: Mapping[int, Link]) -> None:
        self.rank = rank
        self.links = links
        self.stop = threading.Event()
        """Asks this rank to drain. What sets it on another rank sets it on rank 0."""
        self._over = False
        for other, link in links.items():
            silent = f"rank {other} of the learner ended without a word: killed, or out of memory? See its log"
            aside = {"last_words": self._leave, "stop": lambda _: self.stop.set()}
            link.listen(aside, lambda silent=silent: self._leave(silent))  # type: ignore[misc]

    @property
    def count(self) -> int:
        return distributed.world_size()

    def order(self) -> Message:
        """What rank 0 wants next; on any other rank. That this one was asked to stop is passed on meanwhile."""
        told = False
        while True:
            try:
                return self.links[0].receive(timeout_s=1.0)
            except queue.Empty:
                if self.stop.is_set() and not told:
                    told = True
                    self.links[0].send({"stop": True})

    def end(self) -> None:
        """Ends this rank, all being well; on rank 0 the others too."""
        self._over = True
        for link in self.links.values():
            if self.rank == 0:
                link.send({"order": "end"})
                link.wait_for_the_end(END_S)
            link.close()

    def fail(self, error: BaseException) -> None:
        """Tells the others why this rank ends. Ends it instead, when another's end turns out to be the reason."""
        if not isinstance(error, HeroError):
            time.sleep(BLAME_S)
        self._over = True
        self._tell(f"rank {self.rank} of the learner ended: {type(error).__name__}: {error}; its log says more")

    def _leave(self, why: str) -> None:
        if self._over:
            return
        self._over = True
        self._tell(why)
        os.write(2, f"hero: {why}\n".encode())
        os._exit(RankLost.exit_code)

    def _tell(self, why: str) -> None:
        for link in self.links.values():
            with suppress(OSError):  # of the one that is gone
                link.send({"last_words": why})


@contextmanager
def joined(settings: Sections) -> Iterator[Ranks]:
    """All ranks, connected and of one mind; they end with this one, however it ends.

    ConfigError where the launcher's number of ranks is not the settings', or a rank has other settings than rank 0,
    another model or another version of the project.
    """
    rank, count = _launched(settings.learner.ranks)
    if count == 1:
        yield Ranks(0, {})
        return
    facts = agreement.facts(settings)
    distributed.join()
    ranks = Ranks(rank, _welcome(count, facts) if rank == 0 else _introduce(rank, facts))
    try:
        yield ranks
    except BaseException as error:
        ranks.fail(error)
        raise
    ranks.end()
    distributed.leave()


def _launched(wanted: int) -> tuple[int, int]:
    rank, count = distributed.launched() or (0, 1)
    if count != wanted:
        raise ConfigError(
            f"learner.ranks = {wanted}, but "
            + (
                f"the launcher started {count} (WORLD_SIZE): set learner.ranks = {count}"
                if count > 1
                else f"this process is alone: start it by `torchrun --nproc-per-node {wanted} --no-python hero learner "
                "...` or by `hero up`"
            )
        )
    return rank, count


def _welcome(count: int, facts: Mapping[str, str]) -> dict[int, Link]:
    """On rank 0: the connections of all others, once they agree."""
    token, listening = secrets.token_bytes(_TOKEN_BYTES), serve(os.environ["MASTER_ADDR"])
    _hand_round(listening.getsockname()[1], token)
    connected: dict[int, socket.socket] = {}
    unlike: list[str] = []
    deadline = time.monotonic() + START_S
    with listening:
        while len(connected) < count - 1:
            listening.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                candidate, _ = listening.accept()
                candidate.settimeout(START_S)
                hello = receive(candidate, HELLO_BYTES)
            except TimeoutError:
                missing = sorted(set(range(1, count)) - connected.keys())
                raise RankLost(f"ranks {missing} did not connect within {START_S:.0f} s: see their logs") from None
            except (OSError, EOFError, ValueError):
                continue  # a stranger
            if hmac.compare_digest(hello.get("token", b""), token):
                connected[hello["rank"]] = candidate
                unlike += agreement.differences(facts, hello["facts"], hello["rank"])
    for other in connected.values():
        send(other, {"unlike": unlike})
    if unlike:
        raise ConfigError("the ranks of the learner are not alike: " + "; ".join(unlike))
    return {rank: Link(other) for rank, other in connected.items()}


def _introduce(rank: int, facts: Mapping[str, str]) -> dict[int, Link]:
    """On any other rank: the connection to rank 0, which may say that this rank is not like itself."""
    port, token = _hand_round()
    try:
        first = socket.create_connection((os.environ["MASTER_ADDR"], port), START_S)
        send(first, {"token": token, "rank": rank, "facts": dict(facts)})
        unlike = receive(first, HELLO_BYTES)["unlike"]
    except (OSError, EOFError) as error:
        raise RankLost(
            f"no connection to rank 0 at {os.environ['MASTER_ADDR']}:{port}: {error}; see its log"
        ) from error
    if unlike:
        raise RankLost("rank 0 ended, for the ranks of the learner are not alike: " + "; ".join(unlike))
    return {0: Link(first)}


def _hand_round(port: int = 0, token: bytes = bytes(_TOKEN_BYTES)) -> tuple[int, bytes]:
    """Rank 0's port and token, on every rank."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor([port, *token], dtype=torch.int64, device=device)
    dist.broadcast(told, src=0)
    port, *octets = told.tolist()
    return port, bytes(octets)
