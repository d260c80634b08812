"""`hero top` beside a run that goes on: real learner, scorer and server, a sampler without a model."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from common.history import KEPT_GROUPS, KEPT_STEPS, LINE_BYTES
from common.onlooker import Onlooker
from common.server import LocalServer
from common.streams import Broker
from deploy import cli
from deploy.living import broker_of
from deploy.monitor.screen import Top
from deploy.monitor.spark import BARS
from tests.chaos import job
from tests.chaos.cluster import Cluster
from tests.chaos.steps import Steps
from tests.until import until

RUN = "seen-1"


def text_of(app: Top) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None, markup=False)
    console.print(app.body.content)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Of the broker of a run that has made some steps."""
    with LocalServer(folder / "broker", memory_mb=256) as server:
        settings = job.prepare(folder, folder / "run", real=False)
        with settings.open("a") as more:
            more.write("[metrics]\nport = 0\n")
        cluster = Cluster(settings, server.url, RUN, folder / "logs", actors=1, scorers=1, real=False)
        steps = Steps(folder / "run" / "metrics.jsonl")
        try:
            until(lambda: steps.look() >= 4, "fourth step", seconds=240)
            yield server.url
        finally:
            cluster.close()


def test_once_shows_the_run(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--url", url, "--once"]) == 0
    text = capsys.readouterr().out
    assert f"run {RUN}\n" in text and "of 1000000" in text and "BALANCE" not in text
    assert f"broker: {url}" in text.replace("\n", "")  # which may be long
    for words in ("tickets", "rollouts", "scored", "learner", "actor", "scorer", "tok/s", "groups/s", "steps/s"):
        assert words in text
    for words in ("reward", "verifier accuracy", "staleness", "verdicts: ", "correct"):
        assert words in text
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 80


def test_json_has_what_there_is(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def look() -> bool:
        """Whether the run did something meanwhile, and had something to do: its processes may stand for seconds."""
        assert cli.main(["top", "--run", RUN, "--url", url, "--json"]) == 0
        seen.update(json.loads(capsys.readouterr().out))
        waits = {one["stage"]: one["oldest_s"] for one in seen["streams"]}
        return any(one["rate"] for one in seen["processes"]) and waits["tickets"] is not None

    until(look, "a run that goes on")
    assert seen["run"] == RUN and not seen["over"] and seen["dead_letters"] == 0
    assert {one["role"] for one in seen["processes"]} == {"learner", "actor", "scorer"}
    assert all(one["rate"] is None or one["rate"] >= 0 for one in seen["processes"])
    numbers = [step["step"] for step in seen["steps"]]
    assert len(numbers) >= 4 and numbers == sorted(set(numbers))
    assert seen["books"]["issued"] == sum(
        seen["books"][name] for name in ("trained", "dropped", "dead_lettered", "in_flight")
    )
    ages = {one["stage"]: one["oldest_s"] for one in seen["streams"]}
    assert 0 <= ages["tickets"] < 60


@pytest.mark.parametrize(
    ("name", "counts"), [("learner", "hero_policy_step"), ("scorer-0", "hero_scorer_groups_total")]
)
def test_its_processes_answer_http(url: str, folder: Path, name: str, counts: str) -> None:
    [address] = re.findall(r"http://127\.0\.0\.1:\d+", next((folder / "logs").glob(f"{name}*")).read_text())
    for probe in ("livez", "readyz"):
        assert httpx.get(f"{address}/{probe}", timeout=60).text == "ok\n"

    def counted() -> float:
        [value] = re.findall(rf"^{counts} (.*)$", httpx.get(f"{address}/metrics", timeout=60).text, re.M)
        return float(value)

    until(lambda: counted() >= 4, "a heartbeat since the fourth step")


def test_keys_leaf_through_the_latest_groups(url: str) -> None:
    async def look() -> list[str]:
        app = Top(broker_of(None, url, "top", Onlooker), 0.2, BARS)
        seen = []
        async with app.run_test(size=(80, 50)) as pilot:

            async def after(key: str, words: str) -> None:
                if key:
                    await pilot.press(key)
                for _ in range(600):
                    if words in (text := text_of(app)):
                        return seen.append(text)
                    await pilot.pause(0.1)
                raise AssertionError(f"{key}: no {words!r} in {text}")

            await after("", f"run {RUN}")
            await after("g", "group 1 of ")
            await after("n", "group 2 of ")
            await after("p", "group 1 of ")
            await after("p", "group 1 of ")
            await after("o", f"run {RUN}")
        return seen

    overview, first, second, again, still, _ = asyncio.run(look())
    assert "books: " in overview
    assert first == again == still != second, "what is leafed through stays as it was"
    assert "\\boxed{" in first and "question" in first and "reward" in first


def test_a_broker_that_goes_away_is_said_to_and_comes_back() -> None:
    async def look(broker: Broker, server: LocalServer) -> None:
        app = Top(broker, 0.1, BARS)

        async def sees(words: str) -> None:
            for _ in range(600):
                if words in (text := " ".join(text_of(app).split())):
                    return
                await pilot.pause(0.1)
            raise AssertionError(f"no {words!r} in {text}")

        async with app.run_test(size=(80, 50)) as pilot:
            await sees("run gone-1")
            server.process.kill()
            server.process.wait()
            await sees("trying again")
            with LocalServer(place, memory_mb=64):
                await sees("has no streams of run gone-1; its learner makes them")

    short = tempfile.TemporaryDirectory(prefix="hero-")  # or the second server would have another address
    with short as name, LocalServer(place := Path(name), memory_mb=64) as server:
        learner = Broker(server.url, "gone-1", "learner")
        learner.check()
        learner.take_over()
        asyncio.run(look(broker_of("gone-1", server.url, "top", Onlooker), server))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--run", "no-such-run"], "knows no run no-such-run"),
        (["--run", "two-1", "--steps"], "--steps: there is no such flag"),
        ([], "give --run; the broker has two-1, two-2"),
    ],
)
def test_what_cannot_be_looked_at(
    tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalServer(tmp_path / "broker", memory_mb=64) as server:
        for run in ("two-1", "two-2"):
            learner = Broker(server.url, run, "learner")
            learner.check()
            learner.take_over()
        assert cli.main(["top", "--url", server.url, "--once", *words]) != 0
    assert says in capsys.readouterr().err


def test_history_is_bounded_and_passes_over_what_is_none_of_ours(broker: Broker) -> None:
    # Given more steps and groups than are kept, a crash in between, and a stranger
    for step in [*range(1, KEPT_STEPS + 5), KEPT_STEPS, KEPT_STEPS + 1]:
        broker.remember({"step": step, "reward_mean": 0.5}, [{"id": 2 * step}, {"id": 2 * step + 1}])
    for foreign in (b"\xff", b"[1]", b"[" * 100_000, b"1" * 9999, b"x" * (LINE_BYTES + 1), b'{"step": "x"}'):
        broker._redis.rpush(broker.key("steps"), foreign)
    # Then the newest of the surviving run are there, each once
    steps = [one["step"] for one in broker.steps()]
    assert steps == list(range(steps[0], KEPT_STEPS + 2)) and len(steps) > KEPT_STEPS - 20
    assert [one["id"] for one in broker.groups(3)] == [2 * KEPT_STEPS + 3, 2 * KEPT_STEPS + 2, 2 * KEPT_STEPS + 1]
    assert len(broker.groups()) == KEPT_GROUPS
    assert broker._redis.llen(broker.key("steps")) <= KEPT_STEPS + 6


def test_nothing_waits_where_nothing_is(broker: Broker) -> None:
    assert set(broker.oldest().values()) == {None}
