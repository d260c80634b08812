"""/metrics, /livez and /readyz, asked over HTTP."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.errors import ConfigError
from common.server import LocalServer
from common.settings import Sections
from common.streams import Broker
from common.vitals import Vitals
from tests import make

SETTINGS = Sections.model_validate({"metrics": {"port": 0}})
Sample = tuple[str, tuple[tuple[str, str], ...]]


def scraped(vitals: Vitals) -> dict[Sample, float]:
    answer = httpx.get(f"{vitals.address}/metrics", timeout=60)
    assert answer.status_code == 200
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families), "no name twice"
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def asked(vitals: Vitals, what: str) -> tuple[int, str]:
    answer = httpx.get(f"{vitals.address}/{what}", timeout=60)
    return answer.status_code, answer.text.strip()


@pytest.fixture
def learner(broker: Broker) -> Iterator[Broker]:
    broker.check()
    incarnation = broker.take_over()
    broker.issue_together([make.ticket(broker.run, id, incarnation=incarnation) for id in range(3)])
    yield broker


def test_the_learner_tells_of_the_whole_run(learner: Broker) -> None:
    # Given a run with something in every book
    worker = Broker(learner.url, learner.run, "actor")
    [first, second] = worker.read("tickets", 2, 100)
    worker.hand_over(first, make.rollout(first.ticket))
    worker.bury(second, "a reason", "")
    line = {
        "step": 7,
        "time": 1.7e9,
        "reward_mean": 0.25,
        "status_correct": 3,
        "status_\n# HELP x": 9,
        "grad_norm": None,
    }
    learner.remember(line, [])
    learner.heartbeat(
        {"role": "learner", "step": 7, "steps": 9, "ready": 2, "issued": 3, "eval_issued": 1, "waits_s": 4.0}
    )
    # When it is scraped
    found = scraped(Vitals(SETTINGS, learner, "learner"))
    # Then every figure is there under its name, and what is not known is NaN
    assert found["hero_stream_lag", (("stage", "tickets"),)] == 1
    assert found["hero_stream_entries", (("stage", "rollouts"),)] == 1
    assert found["hero_stream_pending", (("stage", "tickets"),)] == 0
    assert 0 < found["hero_stream_oldest_seconds", (("stage", "rollouts"),)] < 60
    assert found["hero_stream_oldest_seconds", (("stage", "scored"),)] == 0
    assert found["hero_tickets", (("lane", "train"), ("outcome", "issued"))] == 3
    assert found["hero_tickets", (("lane", "eval"), ("outcome", "issued"))] == 1
    assert found["hero_dead_letters", ()] == 1 and found["hero_broker_up", ()] == 1
    assert (found["hero_policy_step", ()], found["hero_learner_steps_wanted", ()]) == (7, 9)
    assert found["hero_waiting_seconds", ()] == 4
    assert found["hero_step_reward_mean", ()] == 0.25 and math.isnan(found["hero_step_grad_norm", ()])
    assert found["hero_step_completions", (("status", "correct"),)] == 3
    assert found["process_resident_memory_bytes", ()] > 2**20
    names = {value for _, labels in found for label, value in labels if label not in ("implementation", "version")}
    assert not any(word in name for name in names for word in (learner.consumer, "HELP")), "labels are ours alone"


def test_a_worker_tells_of_itself(broker: Broker) -> None:
    vitals = Vitals(SETTINGS, broker, "actor")
    assert not [name for name, _ in scraped(vitals) if name.startswith("hero_")], "nothing before the first heartbeat"
    broker.heartbeat({"role": "actor", "step": None, "tokens": 1234, "busy_s": 2.5, "groups": 3, "waits_s": None})
    found = scraped(vitals)
    assert found["hero_actor_tokens_total", ()] == 1234 and found["hero_actor_busy_seconds_total", ()] == 2.5
    assert found["hero_waiting_seconds", ()] == 0
    assert math.isnan(found["hero_policy_step", ()]) and math.isnan(found["hero_actor_completions_total", ()])
    assert ("hero_stream_lag", (("stage", "tickets"),)) not in found


def test_a_broker_that_is_away_makes_lag_unknown_and_not_none(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "broker", memory_mb=64) as server:
        learner = Broker(server.url, "away-1", "learner")
        learner.check()
        vitals = Vitals(SETTINGS, learner, "learner")
        learner.heartbeat({"role": "learner", "step": 1})
        assert scraped(vitals)["hero_stream_lag", (("stage", "tickets"),)] == 0
        assert asked(vitals, "readyz") == (200, "ok")
    found = scraped(vitals)
    assert math.isnan(found["hero_stream_lag", (("stage", "tickets"),)]) and found["hero_broker_up", ()] == 0
    assert math.isnan(found["hero_dead_letters", ()]) and math.isnan(found["hero_broker_memory_ratio", ()])
    code, why = asked(vitals, "readyz")
    assert code == 503 and "no broker answers" in why
    assert asked(vitals, "livez") == (200, "ok"), "it lives, and waits"


def test_ready_is_who_has_what_it_works_with(broker: Broker) -> None:
    broker.check()
    vitals = Vitals(SETTINGS, broker, "actor")
    assert asked(vitals, "readyz") == (503, "it is still loading")
    broker.heartbeat({"role": "actor", "step": None})
    assert asked(vitals, "readyz") == (503, "it has no policy yet")
    broker.heartbeat({"role": "actor", "step": 4})
    assert asked(vitals, "readyz") == (200, "ok")


def test_alive_is_whose_loop_turns(broker: Broker) -> None:
    settings = Sections.model_validate({"metrics": {"port": 0, "stalled_after_s": 60}})
    broker.check()
    vitals = Vitals(settings, broker, "scorer")
    assert asked(vitals, "livez") == (200, "ok")
    broker.turned_at -= 61  # as when so long has passed
    asked(vitals, "readyz")  # which is no turn of the loop, though it asks the broker
    code, why = asked(vitals, "livez")
    assert code == 503 and why.startswith("its loop has not turned for")
    broker.now_ms()
    assert asked(vitals, "livez") == (200, "ok")


def test_without_a_port_there_is_nothing(broker: Broker) -> None:
    assert Vitals(Sections(), broker, "actor").address is None


def test_a_port_that_is_taken_is_named(broker: Broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"metrics.port = {port} on 127.0.0.1: .*; give each process one of its"):
            Vitals(Sections.model_validate({"metrics": {"port": port}}), broker, "actor")


def test_other_paths_are_told_what_there_is(broker: Broker) -> None:
    code, text = asked(Vitals(SETTINGS, broker, "actor"), "")
    assert code == 404 and "/metrics, /livez and /readyz" in text
