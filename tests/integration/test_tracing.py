"""Traces of tickets across processes, as a collector gets them; a collector that is dead is no trouble of a run's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from structlog.testing import capture_logs

from actors.engine import Engine
from actors.worker import Actor
from common import config
from common.lifecycle import computing_environment, die_with_parent
from common.settings import Sections
from common.streams import Broker
from common.tracing import Tracer, root_of, trace_of
from tests.chaos.fast_engine import FastEngine
from tests.collector import Collector, Told
from tests.integration.learning import Bench
from tests.integration.test_learner_worker import one_turn
from tests.make import policy, ticket
from tests.until import until

ROOT = Path(__file__).parents[2]
CHILDREN = {"actor": ["tests.chaos.fast_actor"], "scorer": ["deploy.cli", "scorer"]}


@pytest.fixture(autouse=True)
def no_settings_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


class Children:
    """An actor and a scorer as processes of their own."""

    def __init__(self, bench: Bench, settings: Sections, folder: Path) -> None:
        file = folder / "settings.json"
        file.write_text(config.dump(settings))
        flags = [str(file), "--broker.url", bench.broker.url, "--run.id", bench.broker.run]
        self.logs = {name: folder / f"{name}.log" for name in CHILDREN}
        self.processes = {name: self._start(name, [*module, *flags]) for name, module in CHILDREN.items()}

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with self.logs[name].open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT, stdout=out, stderr=out, env=computing_environment(1), preexec_fn=die_with_parent,
            )  # fmt: skip

    def leave(self) -> None:
        """As workers do once the run is over."""
        for name, process in self.processes.items():
            assert process.wait(60) == 0, self.logs[name].read_text()[-3000:]

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def traced(bench: Bench, endpoint: str, share: float = 1.0) -> None:
    bench.further = {
        "actor": {"weights_from": "folder", "max_logprob_difference": 1e9},  # its sampler has no model
        "reward": {"mode": "verifier"},
        "tracing": {"share": share, "endpoint": endpoint},
    }


def run_with_children(bench: Bench, folder: Path, steps: int) -> dict[str, int]:
    """A learner in this process, an actor and a scorer in theirs, to the end; the audited books."""
    learner = bench.learner(steps=steps)
    children = Children(bench, learner._settings, folder)
    try:
        learner.start()
        until(lambda: learner._step == steps or one_turn(learner), f"step {steps}", seconds=200)
        learner.finish()
        learner._spans.close(over=True)
        children.leave()
    finally:
        children.kill()
    return learner._ledger.audit()


def only(spans: list[Told]) -> Told:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_ticket_is_one_trace_through_three_processes(bench: Bench, collector: Collector, tmp_path: Path) -> None:
    traced(bench, collector.endpoint)
    books = run_with_children(bench, tmp_path, steps=3)
    traces, run = collector.traces(), bench.broker.run
    assert collector.paths == {"/v1/traces"} and len(traces) == books["issued"] >= 6
    trained = [id for id, outcome in bench.logged() if outcome == "trained"]
    assert len(trained) == books["trained"] == 6
    for id in trained:
        # Every part is there once, under the ids that each process has worked out for itself
        found = traces[trace_of(run, id, 1)]
        assert set(found) == {"ticket", "sample", "score", "verify", "wait", "train", "commit"}
        of = {name: only(spans) for name, spans in found.items()}
        root, score = of["ticket"], of["score"]
        assert root.id == root_of(root.trace) and root.parent == 0 and not any(span.fault for span in of.values())
        assert of["verify"].parent == score.id
        assert {of[name].parent for name in ("sample", "score", "wait", "train", "commit")} == {root.id}
        services = {name: span.service.removeprefix("hero-") for name, span in of.items()}
        assert {services[name] for name in ("ticket", "wait", "train", "commit")} == {"learner"}
        assert (services["sample"], services["score"], services["verify"]) == ("actor", "scorer", "scorer")
        # And it says what became of the ticket, in the order in which it came about
        assert root.attributes["outcome"] == "trained" and root.attributes["issued_by_this_learner"]
        assert root.attributes["step"] == of["train"].attributes["step"] in (1, 2, 3)
        assert of["sample"].attributes["completions"] == 2 and of["sample"].attributes["tokens"] >= 2
        for span in of.values():
            assert (span.attributes["hero.ticket"], span.attributes["hero.attempt"]) == (id, 1)
            assert span.attributes["hero.run"] == span.resource["hero.run"] == run
            assert root.start_ns <= span.start_ns <= span.end_ns
        starts = [of[name].start_ns for name in ("ticket", "sample", "score", "wait", "train", "commit")]
        assert starts == sorted(starts)
        assert of["wait"].end_ns == of["train"].start_ns and of["commit"].end_ns <= root.end_ns
    others = {only(traces[trace_of(run, id, 1)]["ticket"]).attributes["outcome"] for id in range(books["issued"])}
    assert others <= {"trained", "dropped", "in_flight"}


@pytest.mark.parametrize("answers", [False, True])
def test_a_dead_collector_slows_nothing_and_loses_no_group(bench: Bench, tmp_path: Path, answers: bool) -> None:
    # Given a collector to which nobody can connect, or that takes what comes and never answers
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        if not answers:
            silent.close()
        traced(bench, f"http://127.0.0.1:{port}")
        with capture_logs() as said:
            books = run_with_children(bench, tmp_path, steps=3)
    # Then the run is as any other; all that was not told is counted, and it was said once
    assert books["trained"] == 6 and books["dead_lettered"] == 0
    assert bench.broker.open_tickets() == {} or books["in_flight"]
    spans = bench.learners[0]._spans
    assert spans.untold >= 3 * 6, "wait, train and root of each, at least"
    about = [line["event"] for line in said if line.get("to") == "the collector of traces"]
    assert about.count("cannot be carried, the run goes on without") <= 1 and "not everything was carried" in about


def test_new_weights_while_a_group_is_sampled_are_events(broker: Broker, collector: Collector) -> None:
    settings = Sections.model_validate(
        {
            "actor": {"groups_in_flight": 4, "weights_from": "folder"},
            "tracing": {"share": 1.0, "endpoint": collector.endpoint},
        }
    )
    own = Broker(broker.url, broker.run, "actor")
    actor = Actor(settings, own, cast(Engine, FastEngine(64)), threading.Event())
    actor._follower.policy = policy(1, 0)
    incarnation = broker.take_over()
    broker.issue_together([ticket(broker.run, id, incarnation=incarnation) for id in range(2)])
    broker.issue(ticket(broker.run, 0, lane="eval", incarnation=incarnation))
    actor._spans.follow(actor._follower.policy)
    until(lambda: actor._take_tickets() or len(actor._groups) == 3, "tickets")
    # When a group's lease is lost, and new weights come before the other's end
    actor._follower.policy = policy(1, 7)
    actor._spans.follow(actor._follower.policy)
    actor._spans.follow(actor._follower.policy)
    actor._leases._lost.add(next(d.name for d in actor._groups.of("train") if d.ticket.id == 1))
    until(lambda: actor._sample() or not actor._engine.busy, "rollouts")
    actor.close()
    # Then each says so, and nothing is told of evaluation
    finished, lost = sorted(collector.spans, key=lambda span: span.attributes["hero.ticket"])
    assert {finished.name, lost.name} == {"sample"} and finished.fault == "" and lost.fault == "lease lost"
    [(name, at_ns, details)] = finished.events
    assert name == "new weights" and details == {"incarnation": 1, "step": 7}
    assert finished.start_ns <= at_ns <= finished.end_ns
    assert finished.parent == root_of(trace_of(broker.run, 0, 1))


def test_a_share_of_the_tickets_the_same_everywhere(broker: Broker) -> None:
    settings = Sections.model_validate({"tracing": {"share": 0.25, "endpoint": "http://127.0.0.1:9"}})
    learner, actor = (Tracer(settings, Broker(broker.url, broker.run, role), role) for role in ("learner", "actor"))
    off = Tracer(Sections(), broker, "scorer")
    sampler, taken = TraceIdRatioBased(0.25), 0
    for id in range(2000):
        order = ticket(broker.run, id)
        mine, theirs = learner.at(id, 1), actor.of(order)
        assert (mine and mine.id) == (theirs and theirs.id) and off.of(order) is None
        decided = sampler.should_sample(None, trace_of(broker.run, id, 1), "ticket").decision.is_sampled()
        assert decided == (mine is not None), "as OpenTelemetry's own sampler decides"
        taken += decided
    assert 400 < taken < 600
    assert learner.of(ticket(broker.run, 0, lane="eval")) is None
    for tracer in (learner, actor):
        tracer.close()


def test_ids_are_the_runs_the_tickets_and_the_attempts_own() -> None:
    traces = [trace_of(run, id, attempt) for run in ("a", "b") for id in range(50) for attempt in range(1, 5)]
    assert len(set(traces)) == len(traces) and all(0 < trace < 2**128 for trace in traces)
    assert len({root_of(trace) for trace in traces}) == len(traces)
    assert trace_of("run-1", 17, 2) == 0x1457DD34FB4EF0E4FC89FABA13E60F1F, "in every version"


def test_off_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys, types; from common.settings import Sections; from common.tracing import Tracer, check; "
        "check(Sections()); tracer = Tracer(Sections(), types.SimpleNamespace(run='r', consumer='c'), 'actor'); "
        "assert tracer.at(1, 1) is None; tracer.close(); import scorer.worker, actors.worker; "
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter') or name == 'common.otlp'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
