"""Spans to a collector, by OpenTelemetry's exporter of OTLP over HTTP. Loaded where traces are asked for alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from common import __version__
from common.errors import HeroError
from common.tracing import Span

_LOGGER = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")


class Collector:
    """A `common.outbox.Carrier`. Headers, certificates and time-outs are those of OTEL_EXPORTER_OTLP_*."""

    def __init__(self, endpoint: str | None, role: str, run: str, process: str) -> None:
        """`endpoint`: as tracing.endpoint has it."""
        self._traces = endpoint and f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
        name = os.environ.get("OTEL_SERVICE_NAME") or f"hero-{role}"
        known = {"service.name": name, "service.instance.id": process, "service.version": __version__, "hero.run": run}
        self._resource = Resource.create(known)
        self._scope = InstrumentationScope("hero-rl", __version__)
        self._exporter: OTLPSpanExporter | None = None
        self._said = ""

    def carry(self, items: Sequence[Span]) -> None:
        if self._exporter is None:
            self._exporter = OTLPSpanExporter(endpoint=self._traces)
        _LOGGER.addFilter(self._hear)
        try:
            result = self._exporter.export([self._readable(span) for span in items])
        finally:
            _LOGGER.removeFilter(self._hear)
        if result is not SpanExportResult.SUCCESS:
            raise HeroError(self._said or "the collector takes no traces")

    def close(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.shutdown()  # type: ignore[no-untyped-call]

    def _hear(self, record: logging.LogRecord) -> bool:
        """What the exporter would say itself, each time: why it failed is known from nowhere else."""
        self._said = record.getMessage()
        return False

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.id),
            parent=None if span.parent is None else _context(span.trace, span.parent),
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(name, attributes, at_ns) for name, at_ns, attributes in span.events],
            kind=SpanKind.INTERNAL,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.ERROR, span.fault) if span.fault else Status(StatusCode.OK),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
