"""The processes of a run on this machine, as real children: their logs, their restarts."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import config
from common.errors import ChildFailed, MemoryFull, RankLost
from common.settings import Sections
from deploy import children, processes
from deploy.children import Child, Children
from deploy.cores import Cores, current
from deploy.processes import Processes
from deploy.up import _start
from tests.small_disk import SmallDisk
from tests.until import until

HELP = "Score a file of"
LOST = RankLost.exit_code


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


def started(logs: Path, *arguments: str) -> Children:
    """One child that is called scorer-0 and has ended."""
    running = Children(logs)
    running.start("scorer-0", list(arguments), threads=1)
    until(lambda: running.exit_code("scorer-0") is not None, "end of the child")
    return running


@pytest.fixture
def small_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(children, "LOG_BYTES", 1000)
    yield


@pytest.mark.usefixtures("small_logs")
def test_a_log_that_grew_is_moved_and_its_child_goes_on_in_it(logs: Path) -> None:
    running = started(logs, "score", "--help")
    log, older = logs / "scorer-0.log", logs / "scorer-0.log.1"
    first = log.read_text()
    assert HELP in first and "deploy.cli score --help" in (logs / "scorer-0.cmd").read_text()
    running.bound_logs()
    assert (log.read_text(), older.read_text()) == ("", first)
    running.restart_dead(lambda: False)
    until(lambda: running.exit_code("scorer-0") is not None, "end of the child")
    assert log.read_text() == first, "nothing stands before what it writes now"
    with log.open("a") as file:
        file.write("newer\n")
    running.bound_logs()
    assert older.read_text() == first + "newer\n" and log.stat().st_size == 0


@pytest.mark.usefixtures("small_logs")
def test_a_full_disk_keeps_no_older_log_and_gets_room(small_disk: SmallDisk) -> None:
    running = started(small_disk.folder / "logs", "score", "--help")
    small_disk.fill()
    running.bound_logs()
    assert {file.name for file in (small_disk.folder / "logs").iterdir()} == {"scorer-0.cmd", "scorer-0.log"}
    assert (small_disk.folder / "logs" / "scorer-0.log").stat().st_size == 0


def ranks(logs: Path, *codes: str) -> Processes:
    """One process for each, which runs that code."""
    logs.mkdir()
    select = "import os, sys, time; exec(sys.argv[1 + int(os.environ['RANK'])])"
    files = [logs / f"{rank}.log" for rank in range(len(codes))]
    return Processes([sys.executable, "-c", select, *codes], 1, None, files)


@pytest.mark.parametrize(
    ("codes", "blamed", "code"),
    [
        (["sys.exit(0)", "sys.exit(0)"], 0, 0),
        (["sys.exit(9)", f"sys.exit({LOST})"], 0, 9),
        ([f"sys.exit({LOST})", "sys.exit(1)"], 1, 1),
        ([f"sys.exit({LOST})", f"sys.exit({LOST})", "os.kill(os.getpid(), 9)"], 2, -9),
        ([f"sys.exit({LOST})", f"sys.exit({LOST})"], 0, LOST),
        (["time.sleep(600)", "sys.exit(4)"], 1, 4),
    ],
)
def test_the_rank_that_ended_all_is_blamed(
    logs: Path, monkeypatch: pytest.MonkeyPatch, codes: list[str], blamed: int, code: int
) -> None:
    # One that hangs all the same is killed; one that only begins late is not
    monkeypatch.setattr(processes, "END_S", 0.5 if any("sleep(600)" in code for code in codes) else 600.0)
    job = ranks(logs, *codes)
    until(lambda: job.poll() is not None, "end of all ranks")
    assert (job.blame(), job.poll()) == (blamed, code)


@pytest.mark.parametrize(("code", "ended"), [(0, True), (8, True), (MemoryFull.exit_code, False)])
def test_a_learner_out_of_memory_starts_again_and_one_with_another_error_does_not(
    logs: Path, code: int, ended: bool
) -> None:
    running = Children(logs)
    command = [sys.executable, "-c", f"raise SystemExit({code})"]
    job = Processes(command, 1, None, [logs / "learner.log"])
    running._children["learner"] = Child("learner", command, 1, None, [logs / "learner.log"], job)
    until(lambda: job.poll() == code, "end of the learner")
    assert running.learner_ended() == ended
    running.restart_dead(lambda: False)
    assert (running._children["learner"].processes is job) == ended


def test_ranks_that_were_all_killed_by_us(logs: Path) -> None:
    job = ranks(logs, *["time.sleep(600)"] * 2)
    assert job.poll() is None
    job.kill()
    assert (job.blame(), job.poll()) == (0, -signal.SIGKILL)


def test_one_that_cannot_be_kept_alive_ends_with_its_last_words(logs: Path) -> None:
    running = started(logs, "queue", "lag", "--run", "r", "--url", "nowhere")
    with pytest.raises(ChildFailed, match=r"scorer-0 died 6 times, last with exit code 6:\n(.|\n)*none of redis://"):
        for _ in range(20):
            running.restart_dead(lambda: False)
            until(lambda: running.exit_code("scorer-0") is not None, "end of the child")


def test_who_leaves_a_run_that_is_over_stays_away(logs: Path) -> None:
    running = started(logs, "score", "--help")
    before = running.pids()
    running.restart_dead(lambda: True)
    assert running.pids() == before
    running.restart_dead(lambda: False)
    assert running.pids() != before
    running.stop()


def test_being_killed_is_no_fault_of_a_child_and_a_learner_comes_back_too(logs: Path) -> None:
    running = Children(logs)
    may_end, log = logs / "may end", [logs / "learner.log"]
    code = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)"
    command = [sys.executable, "-c", code, str(may_end)]
    running._children["learner"] = Child("learner", command, 1, None, log, Processes(command, 1, None, log))
    for _ in range(2 * children.MAX_RESTARTS):
        os.kill(running.pids()["learner"], signal.SIGKILL)
        until(lambda: running.exit_code("learner") == -signal.SIGKILL, "death")
        assert not running.learner_ended()
        running.restart_dead(lambda: False)
    may_end.touch()
    until(running.learner_ended, "end of the learner")
    before = running.pids()
    running.restart_dead(lambda: False)
    assert running.pids() == before


def test_a_password_is_neither_in_a_command_nor_in_the_run_folder(tmp_path: Path) -> None:
    # Given a broker that asks for a password, and does not answer while somebody looks at who asks it
    silent = socket.create_server(("127.0.0.1", 0), backlog=64)
    place = f"127.0.0.1:{silent.getsockname()[1]}"
    url = f"redis://hero:geheim@{place}/0"
    settings = Sections.model_validate({"broker": {"url": url}, "run": {"folder": str(tmp_path)}})
    (tmp_path / "settings.json").write_text(config.dump(settings))
    # When its processes are started
    running = Children(tmp_path / "logs", {"REDIS_URL": url})
    try:
        _start(running, settings, tmp_path / "settings.json", "r-1", Cores([current()], current()))
        pids = running.pids()
        # Then they have it where nobody else reads, and nowhere else
        assert pids.keys() == {"learner", "actor-0", "scorer-0", "scorer-1"}
        for pid in pids.values():
            assert b"geheim" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"geheim" in Path(f"/proc/{pid}/environ").read_bytes()
        silent.close()
        until(lambda: None not in map(running.exit_code, pids), "end of all: nobody answers", seconds=240)
        assert place in running.last_words("scorer-0")
        assert not [f for f in tmp_path.rglob("*") if f.is_file() and "geheim" in f.read_text(errors="replace")]
    finally:
        silent.close()
        running.stop()
