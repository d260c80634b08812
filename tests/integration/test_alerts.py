"""The alert rules under Prometheus' own promtool, and a real Prometheus that scrapes a learner."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.exposition import OF_STEP
from common.lifecycle import die_with_parent
from common.settings import Sections
from common.streams import Broker
from common.vitals import Vitals
from tests import debian, make
from tests.servers import free_ports
from tests.until import until

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = MONITORING / "alerts.yml"

FREE_PORT = Sections.model_validate({"metrics": {"port": 0}})
LAG, PENDING = 'hero_stream_lag{stage="rollouts"}', 'hero_stream_pending{stage="rollouts"}'
ISSUED, TRAINED = 'hero_tickets{lane="train",outcome="issued"}', 'hero_tickets{lane="train",outcome="trained"}'
UNKNOWN = " ".join(["NaN"] * 120)
TIMEOUTS = 'hero_step_completions{status="timeout"}'
WANTED, STEP = 'hero_learner_steps_wanted{job="hero-learner"}', 'hero_policy_step{job="hero-learner"}'
SOUND = {
    WANTED: "1000x120",
    STEP: "1+1x120",
    "hero_broker_up": "1x120",
    LAG: "4 5 4 6 3 5x115",
    PENDING: "8x120",
    "hero_step_timestamp_seconds": "0+60x120",
    "hero_step_staleness_max": "1 0 1 2 0 1x115",
    "hero_learner_max_staleness": "2x120",
    'hero_step_completions{status="correct"}': "200x120",
    TIMEOUTS: "1x120",
    "hero_step_rm_score_mean": "0.5+0.01x120",
    "hero_step_accuracy": "0.3+0.004x120",
    "hero_dead_letters": "3x120",
    ISSUED: "20+10x120",
    TRAINED: "10+10x120",
    'hero_tickets{lane="train",outcome="in_flight"}': "10x120",
    "hero_actor_logprob_difference_max": "0.0001x120",
    "hero_broker_memory_ratio": "0.4x120",
}
"""A run without a fault: series by name, a value each minute."""
FAULTS: dict[str, dict[str, str | None]] = {
    "HeroLearnerGone": {WANTED: "1000x40 _x80"},
    "HeroBrokerDown": {"hero_broker_up": "1x80 0x40", LAG: UNKNOWN},
    "HeroLagGrowing": {LAG: "4+5x120"},
    "HeroLagUnknown": {LAG: UNKNOWN},
    "HeroNothingTrained": {"hero_step_timestamp_seconds": "0+60x60 3600x60"},
    "HeroStalenessAtItsBound": {"hero_step_staleness_max": "2 2 1 2 2 2x115"},
    "HeroVerifierTimeouts": {TIMEOUTS: "9x120"},
    "HeroRewardHacking": {"hero_step_accuracy": "0.9-0.004x120"},
    "HeroDeadLetters": {"hero_dead_letters": "3x87 5x33"},
    "HeroBooksDoNotBalance": {ISSUED: "21+10x120"},
    "HeroWeightsDiffer": {"hero_actor_logprob_difference_max": "0.4x120"},
    "HeroBrokerNearlyFull": {"hero_broker_memory_ratio": "0.95x120"},
}


@pytest.fixture(scope="module")
def promtool() -> str:
    return debian.program("promtool", "prometheus")


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def test_every_alert_has_a_fault_that_raises_it() -> None:
    assert sorted(alerts()) == sorted(FAULTS)


@pytest.mark.parametrize("alert", [None, *FAULTS])
def test_each_comes_with_its_fault_and_no_other_does(promtool: str, tmp_path: Path, alert: str | None) -> None:
    series = SOUND | (FAULTS[alert] if alert else {})
    firing = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    looked = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "90m",
        "exp_samples": firing,
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [looked],
    }
    file = tmp_path / "case.json"  # which is YAML too
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_what_prometheus_reads(promtool: str) -> None:
    for what, file in (("rules", "alerts.yml"), ("config", "prometheus.yml"), ("config", "prometheus-by-name.yml")):
        done = subprocess.run(
            [promtool, "check", what, str(MONITORING / file)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def learner(broker: Broker) -> Iterator[Vitals]:
    """One that has everything to tell."""
    broker.check()
    incarnation = broker.take_over()
    broker.issue_together([make.ticket(broker.run, id, incarnation=incarnation) for id in range(3)])
    broker.remember({"step": 1, "time": 1.7e9, **dict.fromkeys(OF_STEP, 0.5), "status_correct": 8}, [])
    books = {"issued": 3, "in_flight": 3, "trained": 0, "dropped": 0, "dead_lettered": 0}
    broker.heartbeat({"role": "learner", "step": 1, "steps": 9, "max_staleness": 2, **books})
    yield Vitals(FREE_PORT, broker, "learner")


def shown() -> list[str]:
    """The dashboard's expressions."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_of_rules_and_dashboard_is_one_of_ours(learner: Vitals, broker: Broker) -> None:
    told = httpx.get(f"{learner.address}/metrics", timeout=60).text
    for role, beat in (("actor", {"max_logprob_difference": 0.1, "tokens": 9}), ("scorer", {"groups": 3})):
        own = Broker(broker.url, broker.run, role)
        own.heartbeat({"role": role, **beat})
        told += httpx.get(f"{Vitals(FREE_PORT, own, role).address}/metrics", timeout=60).text
    ours = set(re.findall(r"^(hero_\w+)", told, re.M))
    expressions = re.sub(r"\{[^{}]*\}|annotations:.*?(?=- alert|\Z)", "", RULES.read_text(), flags=re.S)
    wanted = set(re.findall(r"\bhero_\w+", expressions + " ".join(shown())))
    assert len(wanted) > 25 and wanted <= ours, wanted - ours


def test_a_real_prometheus_scrapes_it(learner: Vitals, tmp_path: Path) -> None:
    [port] = free_ports(1)
    config: dict[str, Any] = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "hero-learner",
                "static_configs": [{"targets": [str(learner.address).removeprefix("http://")]}],
            }
        ],
    }
    (tmp_path / "prometheus.json").write_text(json.dumps(config))
    command = [
        debian.program("prometheus", "prometheus"), "--config.file", str(tmp_path / "prometheus.json"),
        "--storage.tsdb.path", str(tmp_path / "data"), "--web.listen-address", f"127.0.0.1:{port}",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)

    def asked(query: str) -> list[Any]:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=5)
            found: list[Any] = answer.json()["data"]["result"] if answer.status_code == 200 else []
        except httpx.TransportError:
            return []
        return found

    try:
        until(lambda: asked('up{job="hero-learner"} == 1'), "first scrape", seconds=60)
        # A scrape that came late takes all series away until the next
        lag, astray = 'hero_stream_lag{stage="tickets"}', "sum(hero_tickets{outcome='issued'}) - "
        astray += "sum(hero_tickets{outcome!='issued'})"
        for query, expected in ((lag, "3"), (astray, "0")):
            values = lambda query=query: [found["value"][1] for found in asked(query)]  # noqa: E731
            until(lambda values=values, expected=expected: values() == [expected], f"{expected} as {query}")  # type: ignore[misc]
        for expression in shown():
            query = {"query": expression}
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params=query, timeout=60)
            assert answer.status_code == 200, (expression, answer.text)
        rules = httpx.get(f"http://127.0.0.1:{port}/api/v1/rules", timeout=60).json()["data"]["groups"][0]["rules"]
        assert sorted(rule["name"] for rule in rules) == sorted(FAULTS)
        assert all(rule["health"] in ("ok", "unknown") for rule in rules)
    finally:
        process.kill()
        process.wait()
