"""A collector of traces: takes OTLP over HTTP, and keeps every span."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Told:
    """A span as it came."""

    name: str
    service: str
    trace: int
    id: int
    parent: int
    """0 of a root."""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    fault: str
    resource: dict[str, Any]


class Collector:
    """Answers at `endpoint` while it is entered."""

    def __init__(self) -> None:
        self.spans: list[Told] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.add(self.path)
                collector.spans += _told(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def traces(self) -> dict[int, dict[str, list[Told]]]:
        """Trace, name of a span, and all spans of that name."""
        found: dict[int, dict[str, list[Told]]] = defaultdict(lambda: defaultdict(list))
        for span in list(self.spans):
            found[span.trace][span.name].append(span)
        return found


def _told(request: ExportTraceServiceRequest) -> list[Told]:
    found = []
    for of_resource in request.resource_spans:
        resource = _plain(of_resource.resource.attributes)
        for span in (span for scope in of_resource.scope_spans for span in scope.spans):
            found.append(
                Told(
                    name=span.name,
                    service=resource["service.name"],
                    trace=int.from_bytes(span.trace_id, "big"),
                    id=int.from_bytes(span.span_id, "big"),
                    parent=int.from_bytes(span.parent_span_id, "big"),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_plain(span.attributes),
                    events=[(event.name, event.time_unix_nano, _plain(event.attributes)) for event in span.events],
                    fault=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else "",
                    resource=resource,
                )
            )
    return found


def _plain(attributes: Any) -> dict[str, Any]:
    def value(given: AnyValue) -> Any:
        return getattr(given, given.WhichOneof("value"))

    pairs: list[KeyValue] = list(attributes)
    return {pair.key: value(pair.value) for pair in pairs}
