"""A log of JSON lines holds whole lines, whatever dies or fills up, and stays within its size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import DiskFull
from learner.json_lines import JsonLines
from tests.small_disk import SmallDisk


def numbers(file: Path) -> list[int]:
    return [json.loads(line)["n"] for line in file.open()]


def test_what_was_written_is_continued(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.jsonl"
    for n in (1, 2):
        log = JsonLines(file)
        log.write({"n": n})
        log.close()
    assert numbers(file) == [1, 2]


@pytest.mark.parametrize("torn", ['{"n": 2', '{"n": 2, "text": "' + "x" * 10_000, "x" * 10_000])
@pytest.mark.parametrize("whole", ["", '{"n": 1}\n'])
def test_half_a_line_of_a_writer_that_was_killed_is_cut_off(tmp_path: Path, whole: str, torn: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(whole + torn)
    log = JsonLines(file)
    log.write({"n": 3})
    log.close()
    assert numbers(file) == ([1, 3] if whole else [3])


def test_a_full_disk_keeps_whole_lines_and_the_next_try_succeeds(small_disk: SmallDisk) -> None:
    log = JsonLines(small_disk.folder / "log.jsonl")
    log.write({"n": 1})
    small_disk.fill()
    line = {"n": 2, "text": "x" * 20_000}
    with pytest.raises(DiskFull, match=r"log\.jsonl"):
        log.write(line)
    assert numbers(small_disk.folder / "log.jsonl") == [1]
    small_disk.free()
    log.write(line)
    log.close()
    assert numbers(small_disk.folder / "log.jsonl") == [1, 2]


def test_older_parts_are_few_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    log = JsonLines(file, limit_bytes=100, files=3)
    for n in range(100):
        log.write({"n": n})
    log.close()
    parts = [tmp_path / "log.jsonl.2", tmp_path / "log.jsonl.1", file]
    assert sorted(tmp_path.iterdir()) == sorted(parts)
    assert all(part.stat().st_size <= 100 for part in parts)
    kept = [n for part in parts for n in numbers(part)]
    assert kept == list(range(kept[0], 100)) and len(kept) > 15
