"""Weights from host to host: who has a version gives it to those who come, so that a hundred do not all ask the broker.

A request is the run's secret and the version that is wanted; the answer the step and the file of the newest one here
that is not newer, or nothing. What comes is checked like anything else: a relay is not trusted, only asked first. Plain
TCP.

    request:  secret (32 bytes) | incarnation, step, frozen weights instead (3 x uint64)
    answer:   step, bytes (2 x uint64; both 0: not here, or busy) | the file
"""

from __future__ import annotations

import hmac
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import WeightsError
from common.weights import folder

SECRET_BYTES = 32
TIMEOUT_S = 10.0
"""Without a byte, on either side."""
MOST_GUESTS = 2
"""Served at once; others go elsewhere."""
MOST_CONNECTED = 32
BLOCK_BYTES = 2**20

_REQUEST = struct.Struct(f"<{SECRET_BYTES}sQQQ")
_ANSWER = struct.Struct("<QQ")


class Relay(socketserver.ThreadingTCPServer):
    """Serves the versions under `root` from a thread of its own, until `close`."""

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, root: Path, secret: bytes) -> None:
        """Listens on a free port of `host`. Raises OSError."""
        super().__init__((host, 0), _Guest)
        self.root, self.secret = root, secret
        self.places = threading.BoundedSemaphore(MOST_GUESTS)
        self.connected = self.served = 0
        """Guests that are there, and files that went out whole."""
        self._thread = threading.Thread(target=self.serve_forever, name="relaying", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Strangers that say nothing take few threads."""
        return self.connected < MOST_CONNECTED

    def handle_error(self, request: object, client_address: object) -> None:
        """A guest that goes away is no error of ours."""


class _Guest(socketserver.BaseRequestHandler):
    server: Relay
    request: socket.socket

    def setup(self) -> None:
        self.server.connected += 1

    def finish(self) -> None:
        self.server.connected -= 1

    def handle(self) -> None:
        self.request.settimeout(TIMEOUT_S)
        secret, incarnation, step, frozen = _REQUEST.unpack(_exactly(self.request, _REQUEST.size))
        if not hmac.compare_digest(secret, self.server.secret) or not self.server.places.acquire(blocking=False):
            self.request.sendall(_ANSWER.pack(0, 0))
            return
        try:
            self._give(incarnation, step, bool(frozen))
        finally:
            self.server.places.release()

    def _give(self, incarnation: int, step: int, frozen: bool) -> None:
        root = self.server.root
        here = [(found, path) for by, found, path in folder.versions(root) if by == incarnation and found <= step]
        found, path = (0, folder.of_frozen(root, incarnation)) if frozen else max(here, default=(0, root / "none"))
        try:
            with folder.locked(path) as file, file.open("rb") as opened:
                self.request.sendall(_ANSWER.pack(found, file.stat().st_size))
                self.request.sendfile(opened)
                self.server.served += 1
        except WeightsError:
            self.request.sendall(_ANSWER.pack(0, 0))


@dataclass(frozen=True)
class Wanted:
    """The newest version that is not newer than this one, or that learner's frozen weights; a file of so many bytes."""

    incarnation: int
    step: int
    frozen: bool
    size: int


def take(address: str, secret: bytes, wanted: Wanted, target: Callable[[int], Path]) -> Path | None:
    """Folder, named by `target` from its step, of what the host there gives; None when it does not. It is not verified.

    Raises DiskFull."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            connection.sendall(_REQUEST.pack(secret, wanted.incarnation, wanted.step, wanted.frozen))
            step, length = _ANSWER.unpack(_exactly(connection, _ANSWER.size))
            if length != wanted.size or step > wanted.step:
                return None
            draft = folder.Draft(target(step))
            try:
                draft.fill(_blocks(connection, length), length)
                return draft.publish()
            finally:
                draft.discard()
    except (OSError, ValueError):
        return None


def _blocks(connection: socket.socket, size: int) -> Iterator[bytes]:
    """So many bytes. Raises ConnectionError as `_exactly`."""
    while size:
        if not (block := connection.recv(min(size, BLOCK_BYTES))):
            raise ConnectionError("the other side went away")
        size -= len(block)
        yield block


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises OSError when the other side goes away before."""
    found = bytearray()
    while len(found) < size:
        if not (more := connection.recv(size - len(found))):
            raise ConnectionError("the other side went away")
        found += more
    return bytes(found)
