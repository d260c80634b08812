"""Connections between the ranks of a learner, from rank 0 to every other: orders one way, answers the other.

They stand beside the group in which tensors travel. There every call blocks until all ranks have come; here one may
wait for an order for hours, and the end of a rank is noticed at once, whatever the main thread of another waits for.
A message is its length and msgpack; a token that the group has handed round says who belongs to it.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np

MESSAGE_BYTES = 2**34
_LENGTH = struct.Struct("<Q")
_ARRAY = 1
# A host that vanishes says no goodbye: asked after 30 s of silence, given up 60 s later.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}

Message = dict[str, Any]
"""Text keys; numbers, text, bytes, lists, maps and one-dimensional arrays."""


class Link:
    """One connection. `send` and `receive` in the main thread; a thread of its own reads, and notices the end."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not on every system
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._sending = threading.Lock()
        self._received: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def listen(self, aside: Mapping[str, Callable[[Any], object]], ended: Callable[[], object]) -> None:
        """Reads from now on. What comes under a key of `aside` goes there at once, in the reading thread."""

        def read() -> None:
            try:
                while True:
                    message = receive(self._socket)
                    for key in message.keys() & aside.keys():
                        aside[key](message.pop(key))
                    if message:
                        self._received.put(message)
            except (OSError, EOFError, ValueError):
                ended()

        self._reader = threading.Thread(target=read, name="link", daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        with self._sending:
            send(self._socket, message)

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message. Signals are served meanwhile. Raises queue.Empty after `timeout_s`."""
        return self._received.get(timeout=timeout_s)

    def wait_for_the_end(self, seconds: float) -> None:
        """Until the other side has closed; not longer than `seconds`."""
        self._reader.join(seconds)

    def close(self) -> None:
        with suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def serve(address: str) -> socket.socket:
    """A socket that listens on `address`; on all of this host where that is only a name for it, of a service say."""
    try:
        family, *_, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        return socket.create_server((place[0], 0), family=family)
    except OSError:
        return socket.create_server(("", 0))


def send(to: socket.socket, message: Message) -> None:
    body = msgpack.packb(message, default=_pack)
    to.sendall(_LENGTH.pack(len(body)))
    to.sendall(body)


def receive(sender: socket.socket, most_bytes: int = MESSAGE_BYTES) -> Message:
    """The next message. EOFError at the end, ValueError when it is none of ours."""
    (length,) = _LENGTH.unpack(_exactly(sender, _LENGTH.size))
    if length > most_bytes:
        raise ValueError(f"a message of {length} bytes, at most {most_bytes} are taken")
    message = msgpack.unpackb(_exactly(sender, length), ext_hook=_unpack)
    if not isinstance(message, dict):
        raise ValueError(f"a message that is a {type(message).__name__}")
    return message


def _exactly(sender: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        read = sender.recv_into(view)
        if not read:
            raise EOFError("closed by the other side")
        view = view[read:]
    return data


def _pack(value: object) -> msgpack.ExtType:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return msgpack.ExtType(_ARRAY, value.dtype.str.encode().ljust(4) + value.tobytes())
    raise TypeError(f"{type(value).__name__} does not travel between ranks")


def _unpack(code: int, data: bytes) -> object:
    if code != _ARRAY:
        raise ValueError(f"extension {code} is none of ours")
    return np.frombuffer(data, np.dtype(data[:4].decode().strip()), offset=4)
