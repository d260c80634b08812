"""What Prometheus' own exporter for Redis says of a run's streams is what our /metrics says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.lanes import GROUPS
from common.lifecycle import die_with_parent
from common.streams import Broker
from common.vitals import Vitals
from tests import debian, make
from tests.integration.test_alerts import FREE_PORT
from tests.servers import free_ports
from tests.until import until

LAG = """
local told = {}
for stream in string.gmatch("%s", "%%S+") do
  for _, group in ipairs(redis.call("XINFO", "GROUPS", stream)) do
    for i = 1, #group, 2 do
      if group[i] == "lag" then
        told[#told + 1] = stream
        told[#told + 1] = tostring(group[i + 1] or "nan")
      end
    end
  end
end
return told
"""
"""For `-script`: the lag of each stream's group, which exporters before 1.52, Debian 12's too, have no metric for."""


def samples(address: str) -> dict[tuple[str, str], float]:
    """By name and stream, or stage."""
    families = text_string_to_metric_families(httpx.get(address, timeout=60).text)
    found = (sample for family in families for sample in family.samples)
    return {
        (s.name, s.labels.get("stream") or s.labels.get("key") or s.labels.get("stage", "")): s.value for s in found
    }


@pytest.fixture
def exporter(broker: Broker, tmp_path: Path) -> Iterator[str]:
    """Its /metrics, beside the run's server."""
    [port] = free_ports(1)
    script = tmp_path / "lag.lua"
    script.write_text(LAG % " ".join(broker.key(stage) for stage in GROUPS))
    command = [
        debian.program("prometheus-redis-exporter", "prometheus-redis-exporter"), "-redis.addr", broker.url,
        "-check-streams", broker.key("*"), "-script", str(script), "-web.listen-address", f"127.0.0.1:{port}",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    address = f"http://127.0.0.1:{port}/metrics"

    def up() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return samples(address)["redis_up", ""] == 1

    try:
        until(up, "exporter", seconds=60, passing=(httpx.TransportError,))
        yield address
    finally:
        process.kill()
        process.wait()


def test_redis_exporter_says_the_same(broker: Broker, exporter: str) -> None:
    # Given a run with work at every stage, in both lanes: waiting, in hand, scored
    learner = Broker(broker.url, broker.run, "learner")
    incarnation = learner.take_over()
    learner.issue_together([make.ticket(broker.run, id, incarnation=incarnation) for id in range(9)])
    learner.issue_together([make.ticket(broker.run, id, lane="eval", incarnation=incarnation) for id in range(4)])
    taken = broker.read("tickets", 6, 100) + broker.read("eval:tickets", 3, 100)
    for order in [*taken[:4], taken[6]]:
        broker.hand_over(order, make.rollout(order.ticket))
    for made in broker.read("rollouts", 3, 100)[:2]:
        broker.hand_over(made, make.scored(make.rollout(made.ticket)))
    learner.read("scored", 1, 100)
    learner.heartbeat({"role": "learner", "step": 1})
    # When both are asked
    ours, theirs = samples(f"{Vitals(FREE_PORT, learner, 'learner').address}/metrics"), samples(exporter)
    # Then they agree on all of it
    known = {
        "hero_stream_entries": "redis_stream_length",
        "hero_stream_pending": "redis_stream_group_messages_pending",
        "hero_stream_lag": "redis_script_values",
    }
    if any(name == "redis_stream_group_lag" for name, _ in theirs):
        known["hero_stream_lag"] = "redis_stream_group_lag"
    for mine, other in known.items():
        said = {stage: ours[mine, stage] for stage in GROUPS}
        assert said == {stage: theirs[other, broker.key(stage)] for stage in GROUPS}, (mine, other)
    # And it was not nothing
    assert [ours["hero_stream_lag", stage] for stage in GROUPS] == [3, 1, 1, 1, 1, 0]
    assert [ours["hero_stream_pending", stage] for stage in GROUPS] == [2, 1, 1, 2, 0, 0]
