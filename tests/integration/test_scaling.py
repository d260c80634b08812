"""Scorers that come and go with the lag of real streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from common import config
from common.settings import Sections
from common.streams import Broker
from deploy import scaling
from deploy.children import Children
from deploy.scaling import RECORD, Scaling
from tests import make
from tests.until import until

SETTINGS = Sections.model_validate(
    {
        "reward": {"mode": "verifier"},
        "scorer": {"count": 1, "most": 3, "lag_each": 4, "pending_each": 100, "window_s": 0},
        "verifier": {"children": 1},
    }
)


class Told:
    """What the processes of a run are asked for."""

    def __init__(self) -> None:
        self.names = ["scorer-0"]

    def retire(self, name: str) -> None:
        self.names.remove(name)


def rollouts(broker: Broker, count: int) -> None:
    incarnation = broker.take_over()
    broker.issue_together([make.ticket(broker.run, id, incarnation=incarnation) for id in range(count)])
    for order in broker.read("tickets", count, 100):
        broker.hand_over(order, make.rollout(order.ticket))


def test_they_follow_the_lag(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "LOOK_EVERY_S", 0.0)
    told = Told()
    scaler = Scaling(SETTINGS.scorer, broker, cast(Children, told), told.names.append, tmp_path)
    scaler.look()
    assert told.names == ["scorer-0"]
    rollouts(broker, 10)
    scaler.look()
    assert told.names == ["scorer-0", "scorer-1", "scorer-2"]
    broker.read("rollouts", 5, 100)
    scaler.look()
    assert told.names == ["scorer-0", "scorer-1"]
    broker.read("rollouts", 5, 100)
    scaler.look()
    assert told.names == ["scorer-0"]
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert [(line["lag"], line["pending"], line["scorers"]) for line in lines] == [
        (0, 0, 1), (10, 0, 3), (5, 5, 2), (0, 10, 1)
    ]  # fmt: skip


def test_without_most_they_stay_as_many(broker: Broker, tmp_path: Path) -> None:
    told = Told()
    fixed = SETTINGS.scorer.model_copy(update={"most": None})
    rollouts(broker, 50)
    Scaling(fixed, broker, cast(Children, told), told.names.append, tmp_path).look()
    assert told.names == ["scorer-0"] and not (tmp_path / RECORD).exists()


def test_who_is_retired_hands_back_leaves_and_stays_away(broker: Broker, tmp_path: Path) -> None:
    # Given two scorers that work
    (tmp_path / "settings.json").write_text(config.dump(SETTINGS))
    children = Children(tmp_path / "logs", {"REDIS_URL": broker.url})
    for name in ("scorer-0", "scorer-1"):
        children.start(name, ["scorer", str(tmp_path / "settings.json"), "--run.id", broker.run], 1)
    try:
        broker.check()
        until(lambda: len(broker.processes()) == 2, "two scorers", seconds=180)
        pids = children.pids()
        # When one is retired
        children.retire("scorer-1")
        until(lambda: children.restart_dead(lambda: False) or not children._retired, "its end", seconds=60)
        # Then it has drained, and is not started again; the other one works on
        assert children.pids() == {"scorer-0": pids["scorer-0"]}
        assert [c["name"] for c in broker.consumers() if c["name"].split("-")[-2] == str(pids["scorer-1"])] == []
        rollouts(broker, 1)
        until(lambda: broker.backlog()["scored"]["length"] == 1, "scored group", seconds=60)
    finally:
        children.stop()
