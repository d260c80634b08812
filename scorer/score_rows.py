"""The rows of a file for `hero score`: read one at a time, and checked.

A line that is no row, or no JSON at all, is one with an error: its reason.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from common.progress import Bars

MAX_LINE_BYTES = 64 * 2**20
_TOO_LONG = f"the line has more than {MAX_LINE_BYTES} bytes"


@dataclass(eq=False)
class Row:
    """One line of the file."""

    line: int
    fields: dict[str, Any]
    error: str | None = None

    @property
    def completions(self) -> list[str]:
        completions: list[str] = self.fields["completions"]
        return completions

    @property
    def gold(self) -> str:
        return str(self.fields["gold"])


@contextmanager
def rows_of(source: Path, show: bool) -> Iterator[Iterator[Row]]:
    """The rows of a file, read as they are asked for, under a bar over its bytes."""
    try:
        size = source.stat().st_size
        raw = source.open("rb")
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}; give a JSONL file, gzipped or not") from error
    with raw, Bars(disable=not show) as bar:
        task = bar.add_task(source.name, total=size)

        def rows() -> Iterator[Row]:
            number = 0
            try:
                packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                lines = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
                while line := lines.readline(MAX_LINE_BYTES):
                    number += 1
                    complete = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                    row = _parse(number, line) if complete else Row(number, {"line": number}, _TOO_LONG)
                    while not complete:  # the rest of it, in bounded pieces
                        line = lines.readline(MAX_LINE_BYTES)
                        complete = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                    if line.strip() or row.error == _TOO_LONG:
                        yield row
                    bar.update(task, completed=raw.tell())
            except (OSError, EOFError, zlib.error) as error:  # gzip's own errors among them
                raise DataError(f"{source} is damaged after line {number}: {error}; copy it again") from error

        yield rows()


def _parse(number: int, line: bytes) -> Row:
    try:
        fields = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return Row(number, {"line": number}, f"not JSON: {error}")
    if not isinstance(fields, dict):
        return Row(number, {"line": number}, f"not a JSON object but {type(fields).__name__}")
    return Row(number, fields, _problem(fields))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if np.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _problem(fields: dict[str, Any]) -> str | None:
    """What keeps a row from being scored, or None."""
    missing = [name for name in ("question", "gold", "completions") if name not in fields]
    if missing:
        return f"lacks the field {', '.join(missing)}"
    if not isinstance(fields["question"], str):
        return f"question must be text, not {type(fields['question']).__name__}"
    gold = fields["gold"]
    if isinstance(gold, bool) or not isinstance(gold, str | int | float) or not str(gold).strip():
        return f"gold must be a text or number that is not empty, not {gold!r:.80}"
    completions = fields["completions"]
    if not isinstance(completions, list) or not completions or not all(isinstance(c, str) for c in completions):
        return f"completions must be a list of one or more texts, not {completions!r:.80}"
    meta = fields.get("meta") or {}
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        return "meta must be an object of texts"
    return None
