"""A proxy in front of the server that cuts connections in the middle of a reply, delays them and makes them stall.

It passes bytes on, so it can lose no packet. What loss looks like to a program whose packets are sent again is a
stall, or a connection that is cut; these it can do.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from pathlib import Path

CHUNK_BYTES = 65_536
SENT_AGAIN_S = 0.4  # what a lost packet costs a connection


class Proxy(threading.Thread):
    """Listens on a unix socket, or at what listens already, and passes everything on to the server's socket.

    With `tls` it is the end of the encryption, for a server that was built without.
    """

    def __init__(self, at: Path | socket.socket, server: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name="proxy", daemon=True)
        scheme = "rediss" if tls else "redis"
        self.url = f"unix://{at}" if isinstance(at, Path) else "{}://{}:{}".format(scheme, *at.getsockname()[:2])
        self._at, self._server, self._tls = at, server, tls
        self._delay_s = self._loss = 0.0
        self._chance = random.Random(0)
        self._cut: set[asyncio.Task[None]] = set()
        self._replies: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.start()
        self._ready.wait(10)

    def run(self) -> None:
        self._loop.run_until_complete(self._listen())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    def cut(self) -> None:
        """Every connection ends within its next reply: half of what it brings arrives."""
        self._loop.call_soon_threadsafe(lambda: self._cut.update(self._replies))

    def delay(self, seconds: float) -> None:
        """Every message, in both directions, arrives so much later; 0 ends it."""
        self._delay_s = seconds

    def lose(self, share: float) -> None:
        """This share of the messages, in both directions, arrives as if it had been lost and sent again; 0 ends it."""
        self._loss = share

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join(10)

    async def _listen(self) -> None:
        if isinstance(self._at, Path):
            await asyncio.start_unix_server(self._connected, self._at)
        else:
            await asyncio.start_server(self._connected, sock=self._at, ssl=self._tls)
        self._ready.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._server)
        except OSError:  # it is being killed
            writer.close()
            return
        asking = asyncio.create_task(self._pump(reader, to_server))
        replying = asyncio.create_task(self._pump(from_server, writer))
        self._replies.add(replying)
        await asyncio.wait({asking, replying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (asking, replying):
            task.cancel()
        self._replies.discard(replying)
        self._cut.discard(replying)
        for side in (writer, to_server):
            side.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if self._loss and self._chance.random() < self._loss:
                    await asyncio.sleep(SENT_AGAIN_S)
                cut = asyncio.current_task() in self._cut
                target.write(data[: len(data) // 2] if cut else data)
                await target.drain()
                if cut:
                    return
        except OSError:  # one side is gone, and so the other
            return
