"""/metrics, /livez and /readyz of one process, for Prometheus and for whoever keeps processes alive.

/livez   whether its loop has turned within `metrics.stalled_after_s`; a wait for the broker is a turn
/readyz  whether the broker answers, and the process has what it works with: 503 says what is missing
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

from common.errors import ConfigError, HeroError
from common.exposition import Exposition
from common.onlooker import Onlooker
from common.settings import Sections
from common.shared_state import SharedState

Answer = Callable[..., Any]

log = structlog.get_logger("vitals")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: probes come every few seconds."""


class Vitals:
    """A server in a thread, until the process ends; of `metrics.port`, nothing without one."""

    def __init__(self, settings: Sections, process: SharedState, role: str) -> None:
        """Raises ConfigError when the port is taken."""
        options = settings.metrics
        self.address: str | None = None
        """Where it answers; None without a port."""
        self._process, self._role = process, role
        self._stalled_after_s = options.stalled_after_s
        if options.port is None:
            return
        self._onlooker = Onlooker(process.url, process.run, "vitals")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Exposition(lambda: process.beat, self._onlooker if role == "learner" else None))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._metrics: Answer = make_wsgi_app(registry)
        try:
            server = make_server(options.host, options.port, self._answer, _Server, _Quiet)
        except OSError as error:
            raise ConfigError(
                f"metrics.port = {options.port} on {options.host}: {error.strerror}; give each process one of its own"
            ) from error
        threading.Thread(target=server.serve_forever, name="vitals", daemon=True).start()
        self.address = f"http://{options.host}:{server.server_port}"
        log.info("metrics", at=f"{self.address}/metrics")

    def _answer(self, request: dict[str, Any], start: Answer) -> Iterable[bytes]:
        match request["PATH_INFO"]:
            case "/metrics":
                found: Iterable[bytes] = self._metrics(request, start)
                return found
            case "/livez":
                return _said(start, self._stalled())
            case "/readyz":
                return _said(start, self._missing())
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /metrics, /livez and /readyz\n"]

    def _stalled(self) -> str:
        silent = time.monotonic() - self._process.turned_at
        return "" if silent < self._stalled_after_s else f"its loop has not turned for {silent:.0f} s"

    def _missing(self) -> str:
        """What keeps it from working; "" when nothing does."""
        try:
            self._onlooker.fit()
        except HeroError as error:
            return str(error)
        beat = self._process.beat
        if beat["role"] == "starting":
            return "it is still loading"
        return "it has no policy yet" if self._role == "actor" and beat.get("step") is None else ""


def _said(start: Answer, fault: str) -> Iterable[bytes]:
    start("503 Service Unavailable" if fault else "200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{fault or 'ok'}\n".encode()]
