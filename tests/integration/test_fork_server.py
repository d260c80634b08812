"""Children are forks of one server: what they share and what they do not, and what happens when it dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.errors import ChildFailed
from common.tasks import generate
from scorer import fork_server_process, supervisor
from scorer.child_process import MAX_REPLY_BYTES, ChildProcess
from scorer.fork_server_process import ForkServer
from scorer.sandbox import Item
from tests.integration.verifying import TOWER, is_running, make, parent_of, started_by, statuses, user_ticks
from tests.until import until

ONE = r"\boxed{1}"
ENDLESS = r"\boxed{\sum_{n=1}^{10^{12}} \frac{x}{n^{2}}}"
"""In the memory that it begins with."""
SLOW = [r"\boxed{" + "x+" * 1500 + f"{number}" + "}" for number in range(3)]
"""A good part of a second each."""


def started(sandbox) -> tuple[int, int]:
    """Process ids of the only child and of its server."""
    assert statuses(sandbox, "1", ONE) == ["correct"]
    (pid,) = sandbox.child_pids()
    return pid, parent_of(pid)


def open_files(pid) -> dict[int, str]:
    folder = Path(f"/proc/{pid}/fd")
    return {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}


@pytest.fixture
def forked(monkeypatch):
    """Every child that is forked during the test."""
    children = []

    class Counted(ChildProcess):
        def __init__(self, server):
            super().__init__(server)
            children.append(self.pid)

    monkeypatch.setattr(supervisor, "ChildProcess", Counted)
    return children


def test_a_child_that_hung_is_replaced_without_an_import_and_leaves_no_zombie():
    with make(deadline_s=1.0) as sandbox:
        pid, server = started(sandbox)
        seen = {pid}
        for number in range(3):
            assert statuses(sandbox, "1", TOWER, rf"\boxed{{{number + 2}}}") == ["timeout", "wrong"]
            pid, parent = started(sandbox)
            assert parent == server
            seen.add(pid)
        assert len(seen) == 4
        until(lambda: started_by(server) == [pid], "reaping")


def test_what_computes_all_the_time_is_not_tried_again_and_what_was_stopped_is(forked, monkeypatch):
    with make(deadline_s=6.0) as sandbox:
        pid, _ = started(sandbox)
        # Given an answer that computes, alone: its child is the last one
        monkeypatch.setattr(supervisor, "COMPUTING", 0.2 / 6.0)  # others may use this machine
        assert statuses(sandbox, "1", ENDLESS) == ["timeout"]
        assert forked == [pid]
        monkeypatch.setattr(supervisor, "COMPUTING", 0.2)
        # Given a child that is stopped: its answers are judged in the next one
        pid, _ = started(sandbox)
        os.kill(pid, signal.SIGSTOP)
        assert statuses(sandbox, "1", r"\boxed{2}", r"\boxed{1.0}") == ["wrong", "correct"]
        assert len(forked) > 2
        until(lambda: not is_running(pid), "end")


def test_a_stopped_child_takes_no_long_request(forked):
    with make(deadline_s=6.0) as sandbox:  # the second try has no third
        pid, _ = started(sandbox)
        os.kill(pid, signal.SIGSTOP)
        # more than its socket holds
        texts = [rf"\boxed{{{number}{'é' * 3900}}}" for number in range(16)]
        assert "timeout" not in statuses(sandbox, "1", *texts)
        assert 1 < len(forked) < 10, "not every answer waits for the deadline"


def test_a_reply_that_drips_ends_with_the_deadline_and_one_without_end_is_refused():
    # Given a child that somebody has taken over, and that sends a byte now and then
    server = ForkServer("paper", 256, False)
    child, stop = ChildProcess(server), threading.Event()
    child.wait_until_ready()
    child._socket.close()
    child._socket, theirs = socket.socketpair()

    def drip() -> None:
        while not stop.wait(0.02):
            theirs.send(b"[")

    dripping = threading.Thread(target=drip)
    dripping.start()
    # Then its reply is awaited for the deadline and not for as long as it drips
    with pytest.raises(TimeoutError):
        child.receive(0.3)
    stop.set()
    dripping.join()
    # And one that never ends a line is not kept
    sending = threading.Thread(target=lambda: theirs.sendall(b"x" * 2 * MAX_REPLY_BYTES))
    sending.start()
    with pytest.raises(ValueError, match="longer than"):
        child.receive(60.0)
    child.end()
    sending.join(60)
    theirs.close()
    server.close()


def test_signals_that_ask_to_end_are_the_parents_to_handle():
    with make(deadline_s=60.0) as sandbox:
        pid, server = started(sandbox)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            os.kill(pid, number)
            os.kill(server, number)
        assert started(sandbox) == (pid, server)


def test_the_server_may_be_killed_at_any_time():
    with make(deadline_s=20.0) as sandbox:
        pid, server = started(sandbox)
        # When it dies while nothing is judged
        os.kill(server, signal.SIGKILL)
        until(lambda: not is_running(pid), "end of its child")
        pid, second = started(sandbox)
        assert second != server
        # or in the middle of an answer
        got = []
        thread = threading.Thread(target=lambda: got.extend(statuses(sandbox, "1", ONE + " ", *SLOW)))
        before = user_ticks(pid)
        thread.start()
        until(lambda: user_ticks(pid) > before + 5)
        os.kill(second, signal.SIGKILL)
        thread.join(timeout=60)
        # Then every answer has the verdict that it has alone
        assert got == ["correct"] + ["unparsable"] * 3
        assert started(sandbox)[1] not in (server, second)


def test_a_server_that_is_stopped_is_replaced(monkeypatch):
    monkeypatch.setattr(fork_server_process, "FORK_SECONDS", 2.0)
    with make(deadline_s=20.0) as sandbox:
        pid, server = started(sandbox)
        os.kill(server, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        assert started(sandbox)[1] != server
        assert not is_running(server)
    with make() as sandbox:
        pid, server = started(sandbox)
        os.kill(server, signal.SIGSTOP)
    until(lambda: not is_running(server) and not is_running(pid), "end")


def test_a_dead_server_can_be_closed():
    sandbox = make()
    _, server = started(sandbox)
    os.kill(server, signal.SIGKILL)
    sandbox.close()
    sandbox.close()


def test_closed_while_it_imports(tmp_path, monkeypatch):
    # Given an import that never ends
    (tmp_path / "math_verify.py").write_text("while True: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    sandbox = make()
    until(lambda: any("scorer.fork_server" in command(pid) for pid in started_by(os.getpid())), "start")
    (server,) = [pid for pid in started_by(os.getpid()) if "scorer.fork_server" in command(pid)]
    start = time.monotonic()
    sandbox.close()
    assert time.monotonic() - start < fork_server_process.START_SECONDS / 2
    assert not is_running(server)
    with pytest.raises(ChildFailed, match="closed"):
        sandbox.verify([Item("1", ONE)])


def command(pid) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has ended meanwhile
        return ""


def test_the_thread_that_used_it_first_may_end():
    made = []

    def work():
        made.append(make(deadline_s=60.0))
        made.append(started(made[0]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=60)
    sandbox, processes = made
    with sandbox:
        assert started(sandbox) == processes


def test_a_child_is_ended_by_its_handle_and_not_by_its_number():
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    server = ForkServer("math", 256, False)
    try:
        child = ChildProcess(server)
        child.wait_until_ready()
        ours = child.pid
        assert f"Pid:\t{ours}\n" in Path(f"/proc/self/fdinfo/{child._pidfd}").read_text()
        # When the number is another's by now
        child.pid = bystander.pid
        child.end()
        # Then that one lives
        until(lambda: not is_running(ours), "end")
        assert bystander.poll() is None
        # And one that ended long ago can be ended
        child = ChildProcess(server)
        os.kill(child.pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{child.pid}").exists(), "reaping")
        assert child.computed() == 0.0
        child.end()
    finally:
        server.close()
        bystander.kill()
        bystander.communicate()


def test_a_child_has_its_own_handles_alone():
    with make(children=3) as sandbox:
        until(lambda: len(sandbox.child_pids()) == 3, "three children")

        server = parent_of(sandbox.child_pids()[0])

        def kinds(pid: int) -> list[str]:
            return sorted(name.partition(":")[0] for fd, name in open_files(pid).items() if fd > 2)

        # A moment after its fork a child has closed what is the server's, and the server what is the child's
        own = ["/memfd", "socket"]
        until(lambda: all(kinds(p) == own for p in sandbox.child_pids()), "no handles but its own", passing=(OSError,))
        until(lambda: "/memfd" not in kinds(server), "a server without its children's", passing=(OSError,))
        files = [open_files(pid) for pid in [*sandbox.child_pids(), server]]
        sockets = [name for found in files for name in found.values() if name.startswith("socket:")]
        assert len(sockets) == len(set(sockets)) == 4, "no two processes share a socket"
        for found in files[:3]:
            assert [found[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3


def test_two_kinds_side_by_side_and_no_server_has_threads():
    problem = generate({"chain_sum": {}}, 1, seed=3)[0]
    with make() as math, make(verifier="task") as task, make(verifier="paper") as paper:
        for _ in range(2):
            assert statuses(math, "1", r"\boxed{1 }", TOWER) == ["correct", "timeout"]
            assert task.verify([Item(problem.answer, problem.solution, problem.meta)])[0].rule == "reasoning-gym"
            assert paper.verify([Item("1", r"\boxed{1.0}")])[0].rule == "math-verify"
        assert statuses(math, "1", ONE) == ["correct"]
        servers = {parent_of(pid) for sandbox in (math, task, paper) for pid in sandbox.child_pids()}
        assert len(servers) == 3
        assert [len(list(Path(f"/proc/{server}/task").iterdir())) for server in servers] == [1, 1, 1]
