"""What W&B has written offline: the records of a `.wandb` file, which is a log in the format of LevelDB."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES = 32 * 1024
_FILE_HEAD = 7
_HEAD = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _LAST = 1, 4


def records(file: Path) -> list[Record]:
    """All that are whole."""
    data, found, parts = file.read_bytes(), [], b""
    if len(data) < _FILE_HEAD:
        return []  # it has just been made
    assert data[:4] == b":W&B"
    place = _FILE_HEAD
    while place + _HEAD.size <= len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < _HEAD.size:
            place += left
            continue
        _, length, kind = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        if place + length > len(data):
            break  # it is being written
        parts += data[place : place + length]
        place += length
        if kind in (_WHOLE, _LAST):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def rows(file: Path) -> list[dict[str, Any]]:
    """The history: what was drawn, each with its `_step`."""
    found = []
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return found


def config(file: Path) -> dict[str, Any]:
    """The run's, as it was given at first."""
    [run, *_] = [record.run for record in records(file) if record.WhichOneof("record_type") == "run"]
    return {item.key: json.loads(item.value_json) for item in run.config.update}
