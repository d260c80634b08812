"""TensorBoard's event files: the curves of training in a folder, those of evaluation in its `eval`.

Whoever continues a run begins a file which says from which step on it replaces what earlier ones have: TensorBoard
then hides the steps that are done again.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import histogram_raw, scalar, text

from learner.points import Points
from learner.ratio_bins import CLOSED_LOG2_EDGES


class EventFiles:
    """A `common.outbox.Carrier`."""

    def __init__(self, folder: Path, settings: str) -> None:
        """`settings`: what is shown of them, once in each file."""
        self._folder, self._settings = folder, settings
        self._open: dict[bool, EventFile] = {}

    def carry(self, items: Sequence[Points]) -> None:
        for points in items:
            if points.evaluates not in self._open:
                folder = self._folder / "eval" if points.evaluates else self._folder
                self._open[points.evaluates] = file = EventFile(folder, points.step)
                if not points.evaluates:
                    file.add(text("settings", self._settings), points.step, points.time)
            self._add(self._open[points.evaluates], points)

    def close(self) -> None:
        files, self._open = list(self._open.values()), {}
        for file in files:
            file.close()

    def _add(self, file: EventFile, points: Points) -> None:
        for name, value in points.scalars.items():
            file.add(scalar(name, value), points.step, points.time)
        if points.ratios:
            file.add(_histogram("train/ratio_log2", points.ratios), points.step, points.time)
        file.flush()


class EventFile:
    """One of those that TensorBoard reads from a folder, in the order of their names."""

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        begin = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_step, session_log=begin))

    def add(self, summary: Summary, step: int, seconds: float) -> None:
        self._write(Event(wall_time=seconds, step=step, summary=summary))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _histogram(name: str, counts: Sequence[int]) -> Summary:
    """Of log2 of pi / mu, in which all bins are of one width."""
    middles = [(low + high) / 2 for low, high in pairwise(CLOSED_LOG2_EDGES)]
    total = sum(count * middle for count, middle in zip(counts, middles, strict=True))
    squares = sum(count * middle**2 for count, middle in zip(counts, middles, strict=True))
    first, *limits = CLOSED_LOG2_EDGES
    return histogram_raw(name, first, limits[-1], sum(counts), total, squares, limits, counts)
