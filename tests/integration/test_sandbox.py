"""Verification in real children, hostile answers among harmless ones."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from common.errors import ChildFailed
from common.tasks import generate
from scorer.sandbox import Item
from scorer.supervisor import Supervisor
from tests.integration.verifying import TOWER, is_running, make, parent_of, started_by, statuses, user_ticks
from tests.until import until

PATIENT_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sandbox():
    with make() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def patient():
    """Where no busy machine makes a timeout of anything."""
    with make(deadline_s=PATIENT_S) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("gold", "completion", "status", "extracted"),
    [
        ("42", r"6 * 7 = \boxed{42}", "correct", "42"),
        ("42", r"\boxed{43}", "wrong", "43"),
        ("42", "the answer is 42", "correct", "42"),
        ("0.5", r"\boxed{\frac{1}{2}}", "correct", r"\frac{1}{2}"),
        (r"\frac{a}{b}", r"\frac{2a}{2b}", "correct", r"\frac{2a}{2b}"),
        ("[0,1]", r"\boxed{[0,1]}", "correct", "[0,1]"),
        ("x=1", r"\boxed{1}", "correct", "1"),
        ("42", "", "no_answer", None),
        ("42", r"\boxed{}", "no_answer", None),
        ("42", "I do not know", "no_answer", None),
        ("42", r"\boxed{?!}", "unparsable", "?!"),
        ("42", r"\boxed{\frac{}}", "unparsable", r"\frac{}"),
        ("42", "\\boxed{\x00\x1b[31m}", "unparsable", "\x00\x1b[31m"),
        ("42", "\x00\x01\x1b]0;title\x07" * 50, "no_answer", None),
        ("42", "\ud800\\boxed{42}\udfff", "correct", "42"),
        ("42", "$" * 100_000, "no_answer", None),
        ("42", "step " * 20_000 + r"\boxed{42}", "correct", "42"),
        ("42", "9" * 100_000, "wrong", "9" * 500),
        ("42", r"\boxed{" + "1+" * 300 + "1}", "wrong", ("1+" * 300)[:500]),
    ],
)
def test_statuses(patient, gold, completion, status, extracted):
    (verdict,) = patient.verify([Item(gold, completion)])
    assert (verdict.status, verdict.extracted) == (status, extracted)


@pytest.mark.parametrize("answer", [TOWER, r"\boxed{\sum_{n=1}^{10^{12}} \frac{x}{n^{2}}}"])
def test_an_endless_answer_times_out_and_its_neighbours_do_not(sandbox, answer, monkeypatch):
    attempt, attempts = Supervisor._attempt, []
    monkeypatch.setattr(Supervisor, "_attempt", lambda self, tasks: attempts.append(len(tasks)) or attempt(self, tasks))
    quick = self_made(12)
    assert statuses(sandbox, "2", *quick, answer, r"\boxed{2.5}") == [
        "wrong", "correct", *["wrong"] * 10, "timeout", "wrong",
    ]  # fmt: skip
    # Its batch, the rest of that, itself once more: no neighbour waits out a deadline of its own
    assert len(attempts) <= 3 + 3, "and as often again where the machine was busy"


def test_a_child_may_take_only_so_much_memory(patient):
    patient.verify([Item("1", r"\boxed{1}")])
    (pid,) = patient.child_pids()
    limits = Path(f"/proc/{pid}/limits").read_text()
    address_space = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert 256 * 2**20 < int(address_space.split()[3]) < (256 + 200) * 2**20
    # an answer of 2^33 bits ends its child, twice, and its neighbours are well
    large = r"\boxed{\lfloor 2^{2^{33}} / 3 \rfloor}"
    assert statuses(patient, "2", r"\boxed{2}", large, r"\boxed{4}") == ["correct", "error", "wrong"]


def test_equal_answers_are_judged_once_and_the_order_is_kept():
    # Given a child that lives for exactly two answers
    with make(tasks_per_child=2, deadline_s=PATIENT_S) as sandbox:
        sandbox.verify([Item("1", r"\boxed{1}")])
        pids = sandbox.child_pids()
        # When five completions hold one answer
        got = statuses(sandbox, "2", *[f"way {way}: " + r"\boxed{2}" for way in range(5)])
        # Then one was judged: it was the child's second, and the child is gone
        assert got == ["correct"] * 5
        assert sandbox.child_pids() != pids
    with make(deadline_s=PATIENT_S) as sandbox:
        mixed = [r"\boxed{1}", "", r"\boxed{2}", r"\boxed{1}", r"\boxed{3}"] * 10
        assert statuses(sandbox, "1", *mixed) == ["correct", "no_answer", "wrong", "correct", "wrong"] * 10


def test_a_child_is_replaced_after_its_tasks():
    with make(tasks_per_child=3) as sandbox:
        seen = set()
        for number in range(4):
            assert statuses(sandbox, "1", rf"\boxed{{{number}}}", rf"\boxed{{{number}0}}")[0] != "error"
            seen.update(sandbox.child_pids())
        assert len(seen) >= 2


def test_a_child_killed_in_the_middle_is_not_the_answers_fault():
    with make(deadline_s=20.0) as sandbox:
        sandbox.verify([Item("1", r"\boxed{1}")])
        (pid,) = sandbox.child_pids()
        # Given answers that take a while each
        slow = [r"\boxed{" + "x+" * 1500 + f"{number}" + "}" for number in range(3)]
        got = []
        thread = threading.Thread(target=lambda: got.extend(statuses(sandbox, "1", r"\boxed{1}", *slow)))
        before = user_ticks(pid)
        thread.start()
        until(lambda: user_ticks(pid) > before + 5)
        # When the child dies over one of them
        os.kill(pid, signal.SIGKILL)
        thread.join(timeout=120)
        # Then every answer has the verdict that it has alone
        assert got == ["correct"] + ["unparsable"] * 3
        assert statuses(sandbox, "1", r"\boxed{1.0}") == ["correct"] and sandbox.child_pids() != [pid]


def self_made(count):
    return [rf"\boxed{{{number}}}" for number in range(1, count + 1)]


def test_what_kills_its_child_every_time_is_an_error(tmp_path, monkeypatch):
    # Given a math-verify that dies on one answer, as by a fault in C code, and needs 512 MiB for another
    (tmp_path / "math_verify.py").write_text(
        textwrap.dedent("""
        import os, signal
        LatexExtractionConfig = ExprExtractionConfig = lambda **options: None
        def parse(text, targets, parsing_timeout):
            if "d^2" in text: os.kill(os.getpid(), signal.SIGSEGV)
            if "f^2" in text: bytearray(512 * 2**20)
            if "m^2" in text: bytearray(64 * 2**20)
            return [text]
        def verify(gold, given, timeout_seconds, raise_on_error): return gold == given
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with make(verifier="paper", deadline_s=PATIENT_S) as sandbox:
        got = statuses(sandbox, "1", r"\boxed{1}", r"\boxed{d^2}", r"\boxed{f^2}", r"\boxed{m^2}")
    assert got == ["correct", "error", "error", "unparsable"]


def test_no_child_can_be_started(tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no antlr')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with make() as sandbox, pytest.raises(ChildFailed, match="no antlr"):
        sandbox.verify([Item("1", r"\boxed{1}")])


def test_several_threads_and_children_share_a_sandbox():
    with make(children=2, deadline_s=PATIENT_S) as sandbox:
        # Once more where one thread was through with the first child before the second was asked for
        until(lambda: len(sandbox.child_pids()) == 2 or not statuses(sandbox, "1", *self_made(20)))
        results = {}

        def work(gold):
            results[gold] = statuses(sandbox, str(gold), *self_made(20))

        threads = [threading.Thread(target=work, args=(gold,)) for gold in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert {gold: got.index("correct") + 1 for gold, got in results.items()} == {1: 1, 2: 2, 3: 3, 4: 4}
        assert len(sandbox.child_pids()) == 2


def test_close_ends_the_children_even_in_the_middle_of_an_answer():
    sandbox = make(deadline_s=60.0)
    sandbox.verify([Item("1", r"\boxed{1}")])
    (pid,) = sandbox.child_pids()
    raised = []

    def work():
        try:
            sandbox.verify([Item("1", TOWER)])
        except ChildFailed as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    before = user_ticks(pid)
    until(lambda: user_ticks(pid) > before + 10)
    start = time.monotonic()
    sandbox.close()
    thread.join(timeout=30)
    assert time.monotonic() - start < sandbox.deadline_s / 2
    assert not is_running(pid)
    assert len(raised) == 1
    with pytest.raises(ChildFailed, match="closed"):
        sandbox.verify([Item("1", r"\boxed{1}")])


@pytest.mark.parametrize("hangs", [True, False])
def test_nothing_survives_the_sigkill_of_the_parent(hangs):
    # Given a parent whose child waits for work, or hangs in an answer, where it does not read its pipe
    script = f"""
import sys
from scorer.sandbox import Item, Sandbox
sandbox = Sandbox(1, 60.0, 256, 4000, 1000)
sandbox.verify([Item("1", r"\\boxed{{1}}")])
print(*sandbox.child_pids(), flush=True)
sandbox.verify([Item("1", r"{TOWER}")]) if {hangs} else sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    pid = int(parent.stdout.readline())
    server = parent_of(pid)
    assert parent_of(server) == parent.pid
    before = user_ticks(pid)
    until(lambda: not hangs or user_ticks(pid) > before + 10)
    # When the parent is killed
    parent.kill()
    parent.communicate()
    # Then the child and its server are gone at once
    until(lambda: not is_running(pid) and not is_running(server), "end", seconds=30)


def test_a_server_at_its_imports_does_not_survive_either(tmp_path):
    # Given a server whose import never ends
    (tmp_path / "math_verify.py").write_text("while True: pass")
    script = """
import sys
from scorer.sandbox import Sandbox
sandbox = Sandbox(1, 60.0, 256, 4000, 1000)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    until(lambda: started_by(parent.pid), "start", seconds=60)
    (server,) = started_by(parent.pid)
    try:
        until(lambda: user_ticks(server) > 200, "import", seconds=60)
        parent.kill()
        parent.communicate()
        until(lambda: not is_running(server), "end", seconds=30)
    finally:
        if is_running(server):
            os.kill(server, signal.SIGKILL)


def test_a_child_knows_neither_the_environment_nor_heavy_libraries(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://:secret@host")
    with make() as sandbox:
        sandbox.verify([Item("1", r"\boxed{1}")])
        (pid,) = sandbox.child_pids()
        assert b"secret" not in Path(f"/proc/{parent_of(pid)}/environ").read_bytes()
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("kind", ["math", "paper"])
def test_no_answer_pays_for_imports(kind) -> None:
    code = f"""
import sys
from scorer.answers import Answer
from scorer.verifier import judge, warm_up
warm_up("{kind}")
loaded = set(sys.modules)
assert {{"sympy", "math_verify"}} <= loaded
for pair in ("z^2+3", "y"), ("2 km", "3 m"), ("3:2", "0.7"), ("y>2", "y<1"), ("x=4", "y^2=3"), (r"\\int y dy", "y"), (
    r"[0,1] \\cup [2,3]", "[0,3]"), (r"\\{{1,2\\}}", r"\\{{2,3\\}}"), (
    r"\\sum_{{k=1}}^n k", "n"), (r"\\log 9", r"\\tan 2"):
    judge("{kind}", pair[0], Answer(pair[1], "exact"), {{}})
print(sorted(set(sys.modules) - loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout == "[]\n"


def test_gold_answers_are_checked_and_cannot_hang(sandbox):
    golds = ["42", r"\frac{1}{2}", "", "  ", r"\frac{1}{", "???", "9^{9^{9^9}}", "1" * 5000]
    reasons = sandbox.check_golds(golds)
    assert reasons[:2] == [None, None]
    assert "empty" in reasons[2]
    assert "empty" in reasons[3]
    assert "cannot read" in reasons[4]
    assert "'???'" in reasons[5]
    assert "more than 1 s" in reasons[6]
    assert "5000 characters" in reasons[7]
    assert sandbox.check_golds(["42"]) == [None]


def test_reasoning_gyms_own_scorer():
    problem = generate({"chain_sum": {}}, 1, seed=3)[0]
    with make(verifier="task", deadline_s=PATIENT_S) as sandbox:
        texts = [problem.solution, r"\boxed{-1}", problem.answer, r"\boxed{}", "\\boxed{\x00}"]
        got = sandbox.verify([Item(problem.answer, text, problem.meta) for text in texts])
        assert [v.status for v in got] == ["correct", "wrong", "no_answer", "no_answer", "wrong"]
        # a row without its task cannot be judged, and that is not the completion's fault
        assert sandbox.verify([Item("1", r"\boxed{1}")])[0].status == "error"


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="children=0"):
        make(children=0)
