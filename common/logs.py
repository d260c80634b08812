"""Logs: pretty lines on a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress

import structlog

from common.untrusted import printable


def start(role: str, level: str = "INFO") -> None:
    """Sets up structlog for this process; every line carries its role."""
    terminal = sys.stderr.isatty()
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
        structlog.processors.StackInfoRenderer(),
    ]
    if terminal:
        processors += [_harmless, structlog.dev.ConsoleRenderer()]
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(_Lossy()),
    )
    structlog.contextvars.bind_contextvars(role=role)


class _Lossy(io.StringIO):
    """Standard error; a line that cannot be written, on a full disk or into a closed pipe, is lost alone."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def _harmless(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Reasons quote what strangers wrote, which must not steer the terminal."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def quiet_libraries() -> None:
    """Before any heavy import: what libraries say about their own insides at start-up helps nobody here, and
    two OpenMP pools that spin while they wait slow each other 70-fold."""
    for name, value in {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    # A filter, since DeepSpeed sets its logger's level itself. That there is no GPU is no news to who chose a CPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
