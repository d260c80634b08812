"""How a process is told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from common.lifecycle import LEFT_AT_ONCE

WORKER = """
import os, signal, sys, time
from common.lifecycle import stop_on_signals
stop = stop_on_signals(float(sys.argv[1]))
print("ready", flush=True)
if sys.argv[2] == "was told before":  # by something else than a signal
    stop.set()
    os.kill(os.getpid(), signal.SIGTERM)
if sys.argv[2] == "is asked within a wait":
    with stop._cond:  # which `wait` holds before and after it sleeps
        os.kill(os.getpid(), signal.SIGTERM)
stop.wait(60)
if sys.argv[2] == "hangs":
    print("asked", flush=True)
    time.sleep(60)
"""


def worker(drain_s: float, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(drain_s), what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_who_is_asked_to_stop_drains(asked: signal.Signals) -> None:
    process = worker(30, "drains")
    process.send_signal(asked)
    assert process.wait(60) == 0


def test_a_signal_in_the_middle_of_a_wait_for_it_ends_that_wait() -> None:
    process = worker(30, "is asked within a wait")
    assert process.wait(20) == 0


def test_a_first_signal_is_no_second_one_to_who_stops_already() -> None:
    assert worker(30, "was told before").wait(60) == 0


def test_a_second_signal_leaves_at_once() -> None:
    process = worker(30, "hangs")
    process.send_signal(signal.SIGTERM)
    assert process.stdout and process.stdout.readline() == "asked\n"  # else the kernel may make one of the two
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == LEFT_AT_ONCE


def test_who_does_not_drain_in_time_leaves_at_once_and_says_so() -> None:
    process = worker(0.3, "hangs")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=50)[1] == "not drained within 0.3 s: left at once\n"
    assert process.returncode == LEFT_AT_ONCE
