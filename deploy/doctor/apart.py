"""A check in a process of its own: it may hang, crash or take all memory, and the others go on.

What it finds comes back as JSON, without passwords. It is forked: nothing is imported twice, and the parent imports
nothing heavy.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from multiprocessing.connection import Connection

from common.address import shown
from common.errors import HeroError
from common.lifecycle import die_with_parent
from deploy.doctor.finding import Finding, error, told

MOST_BYTES = 2**20
END_S = 30.0
LAST_WORDS_BYTES = 2000


class Apart:
    """One check, begun at once. `findings` waits for it, until its deadline."""

    def __init__(self, name: str, look: Callable[[], Iterable[Finding]], deadline_s: float) -> None:
        self._name, self._deadline_s = name, deadline_s
        self._ends = time.monotonic() + deadline_s
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `findings`
        self._results, theirs = multiprocessing.Pipe(duplex=False)
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_look, args=(name, look, theirs, self._said.fileno()), name=name)
        self._process.start()
        theirs.close()

    def findings(self) -> list[Finding]:
        """What it found; an error of this check when it did not come to an end."""
        try:
            with self._results, self._said:
                return self._received()
        finally:
            self._end()

    def _received(self) -> list[Finding]:
        try:
            if not self._results.poll(max(0.0, self._ends - time.monotonic())):
                found = f"was not done after {self._deadline_s:g} s and was ended"
                return [error(self._name, found, "try again when the machine is less busy; what it waits for hangs")]
            return [Finding.read(given) for given in json.loads(self._results.recv_bytes(MOST_BYTES))]
        except (EOFError, OSError):
            self._process.join(END_S)  # a pipe closes before its process has ended
            code = self._process.exitcode
            how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
            found = f"the check ended with {how}; its last words: {self._last_words() or 'none'}"
            return [error(self._name, found, "a process of the run would end the same way here: see what it says")]
        except (ValueError, TypeError) as problem:
            return [error(self._name, f"the check said what is no finding: {problem}", "this is a fault of ours")]

    def _last_words(self) -> str:
        size = os.fstat(self._said.fileno()).st_size
        self._said.seek(max(0, size - LAST_WORDS_BYTES))
        lines = self._said.read().decode(errors="replace").split("\n")
        return " ".join(" ".join(lines[-4:]).split())

    def _end(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join(END_S)


def _look(name: str, look: Callable[[], Iterable[Finding]], results: Connection, said: int) -> None:
    die_with_parent()
    for stream in (1, 2):  # what libraries print belongs to no table
        os.dup2(said, stream)
    sys.stdout = sys.stderr = os.fdopen(said, "w", buffering=1, errors="replace", closefd=False)
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except HeroError as problem:
        findings.append(told(name, problem))
    except Exception as problem:  # one that fails must not end the others
        what = f"the check itself failed: {type(problem).__name__}: {problem}"[:500]
        findings.append(error(name, what, "the other checks hold; this one found nothing out"))
    masked = [{key: shown(value) for key, value in asdict(finding).items()} for finding in findings]
    results.send_bytes(json.dumps(masked).encode())
