"""Users with the rights of one role, as `hero acl` makes them, and TLS: a run works so; what is beyond is refused."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
import redis

from common import address
from common.address import client_of
from common.errors import BrokerUnavailable, BrokerUnfit
from common.onlooker import Onlooker
from common.settings import Sections
from common.streams import Broker
from deploy import cli, shadow
from deploy.living import broker_of
from tests.chaos import job
from tests.chaos.cluster import Cluster
from tests.chaos.steps import Steps
from tests.integration.guarded import Guarded
from tests.make import policy, rollout, scored, ticket
from tests.until import until

ROLES = ("learner", "actor", "scorer", "shadow", "viewer", "queue")


@pytest.fixture
def run_id(run_id: str) -> str:
    return f"ours-{run_id}"


class Apart(Cluster):
    """Every place comes with the user of its role."""

    addresses: dict[str, str]

    def _url(self, name: str) -> str:
        return self.addresses[name.partition("-")[0]]


@pytest.mark.timeout(900)
def test_a_run_needs_no_more_than_its_roles_have(guarded: Guarded, run_id: str, tmp_path: Path) -> None:
    settings = job.prepare(tmp_path, tmp_path / "run", real=False, weights_from="broker")
    Apart.addresses = guarded.addresses
    cluster = Apart(settings, "", run_id, tmp_path / "logs", actors=2, scorers=1, real=False)
    steps = Steps(tmp_path / "run" / "metrics.jsonl")
    try:
        until(lambda: steps.look() >= 3, "third step", seconds=240)
        for name in ("scorer-0", "actor-0"):  # what they hold is claimed
            cluster.workers[name].process.kill()
        until(lambda: [*cluster.mend()] or steps.look() >= 6, "sixth step", seconds=120)
        guarded.admin.flushall()  # and whoever comes first makes the streams anew
        before = steps.look()
        until(lambda: cluster.mend() or steps.look() > before + 2, "step after the loss", seconds=120)
        until(lambda: guarded.admin.exists(f"{{{run_id}}}:fence"), "learner that issues again", seconds=60)
        watch = Broker(guarded.addresses["learner"], run_id, "learner")
        pids = lambda: {f"-{worker.process.pid}-" for worker in cluster.workers.values()}  # noqa: E731
        heard = lambda: {pid for pid in pids() if any(pid in name for name in watch.processes())}  # noqa: E731
        until(lambda: cluster.mend() or heard() == pids(), "a sign of everybody: who begins cannot drain", seconds=120)
        url = guarded.addresses["queue"]
        assert cli.main(["queue", "lag", "--run", run_id, "--url", url]) == 0
        left = cluster.drain(["scorer-0", "actor-0", "actor-1", "learner"], 120)
        assert {code for _, code in left} == {0}
    finally:
        cluster.close()
    refused = [(e["username"], e["object"]) for e in guarded.admin.acl_log()]
    assert refused == []


def test_hero_queue_needs_no_more_than_it_has(
    guarded: Guarded, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    learner, actor = (Broker(guarded.addresses[role], run_id, role) for role in ("learner", "actor"))
    learner.check()
    incarnation = learner.take_over()
    learner.issue_together([ticket(run_id, id, incarnation=incarnation) for id in range(3)])
    for order in actor.read("tickets", 3, 100):
        actor.bury(order, "a reason", "")
    entries = [entry for entry, _ in learner.dead_letters()]
    for action in (["lag"], ["list"], ["show", entries[0]], ["retry", entries[0]], ["drop", entries[1]], ["purge"]):
        assert cli.main(["queue", *action, "--run", run_id, "--url", guarded.addresses["queue"]]) == 0, action
    assert [d.ticket.attempt for d in actor.read("tickets", 3, 100)] == [2]


def test_hero_top_needs_no_more_than_it_has(guarded: Guarded, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    learner, actor = (Broker(guarded.addresses[role], run_id, role) for role in ("learner", "actor"))
    learner.check()
    learner.issue_together([ticket(run_id, 0, incarnation=learner.take_over())])
    learner.remember({"step": 1, "reward_mean": 0.5}, [{"id": 0}])
    [order] = actor.read("tickets", 1, 100)
    actor.heartbeat({"role": "actor", "tokens": 3})
    actor.bury(order, "a reason", "")
    capsys.readouterr()
    assert cli.main(["top", "--json", "--run", run_id, "--url", guarded.addresses["viewer"]]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["dead_letters"] == 1 and seen["steps"][0]["step"] == 1 and seen["processes"][0]["role"] == "actor"
    viewer = broker_of(run_id, guarded.addresses["viewer"], "top", Onlooker)
    assert viewer.groups() == [{"id": 0}]
    refused = [(e["username"], e["object"]) for e in guarded.admin.acl_log()]
    assert refused == []


def test_hero_shadow_needs_no_more_than_it_has(
    guarded: Guarded, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "stop_on_signals", lambda _: threading.Event())
    learner, actor, scorer = (Broker(guarded.addresses[role], run_id, role) for role in ("learner", "actor", "scorer"))
    learner.check()
    incarnation = learner.take_over()
    learner.issue_together([ticket(run_id, id, incarnation=incarnation) for id in range(3)])
    for order in actor.read("tickets", 3, 100):
        actor.hand_over(order, rollout(order.ticket))
    for made in scorer.read("rollouts", 3, 100):
        scorer.hand_over(made, scored(made.message))
    (tmp_path / "first.json").write_text(Sections().model_dump_json())
    for read, more in ((1, ["--keep"]), (2, [])):
        words = ["--first", str(tmp_path / "first.json"), "--out", str(tmp_path / "out"), "--groups", str(read), *more]
        assert cli.main(["shadow", "--run", run_id, "--url", guarded.addresses["shadow"], *words]) == 0
    assert len((tmp_path / "out" / "rewards" / "rewards.jsonl").read_text().splitlines()) == 3
    assert learner.shadows() == [] and len(learner.read("scored", 9, 100)) == 3
    refused = [(e["username"], e["object"]) for e in guarded.admin.acl_log()]
    assert refused == []


TAKE = "XREADGROUP GROUP {} me STREAMS {{run}}:{} >"
BEYOND: dict[str, list[str]] = {
    "actor": [
        "XADD {run}:scored * m x",
        "XADD {run}:tickets * m x",
        TAKE.format("learner", "scored"),
        "XADD {run}:eval:scored * m x",
        "XADD {run}:eval:tickets * m x",
        TAKE.format("scorers", "eval:rollouts"),
    ],
    "scorer": [
        "XADD {run}:rollouts * m x",
        "HDEL {run}:open 1",
        TAKE.format("actors", "tickets"),
        "XADD {run}:eval:rollouts * m x",
        "HDEL {run}:eval:open 1",
        TAKE.format("actors", "eval:tickets"),
    ],
    "shadow": [
        "XADD {run}:scored * m x",
        "XACK {run}:scored learner 1-0",
        "XDEL {run}:scored 1-0",
        "XGROUP SETID {run}:scored learner $",
        "XGROUP CREATE {run}:rollouts shadow:second 0",
        "HSET {run}:open 1 x",
        "HSET {run}:procs me x",
        "HSET {run}:lost x 1",
        "GET {run}:policy",
        "HGETALL {run}:open",
        TAKE.format("scorers", "rollouts"),
        TAKE.format("learner", "eval:scored"),
    ],
    "queue": [
        "XADD {run}:eval:tickets * m x",
        "XADD {run}:scored * m x",
        "DEL {run}:tickets",
        TAKE.format("actors", "tickets"),
    ],
    "viewer": [
        "XADD {run}:tickets * m x",
        "HSET {run}:procs me x",
        "RPUSH {run}:steps x",
        "XACK {run}:tickets actors 1-0",
        TAKE.format("actors", "tickets"),
        TAKE.format("learner", "scored"),
    ],
    "learner": [],
}
NOBODYS = [
    "FLUSHALL",
    "CONFIG SET maxmemory 1",
    "KEYS *",
    "ACL LIST",
    "CLIENT LIST",
    "SHUTDOWN",
    "EVAL return 0",
    "GET {theirs}:over",
]
LEARNERS = [
    "SET {run}:fence 9",
    "SET {run}:policy x",
    "DEL {run}:scored",
    "XTRIM {run}:dead MAXLEN 0",
    "SET {run}:over 1",
]


@pytest.mark.parametrize("role", ROLES)
def test_what_is_beyond_a_role_is_refused(guarded: Guarded, run_id: str, role: str) -> None:
    client = client_of(guarded.addresses[role])
    Broker(guarded.addresses["learner"], run_id, "learner").check()
    for command in BEYOND[role] + NOBODYS + (LEARNERS if role != "learner" else []):
        words = [word.replace("{run}", f"{{{run_id}}}") for word in command.split()]
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*words)
    guarded.admin.acl_log_reset()


def test_scripts_give_no_rights(guarded: Guarded, run_id: str) -> None:
    learner, actor = (Broker(guarded.addresses[role], run_id, role) for role in ("learner", "actor"))
    learner.check()
    incarnation = learner.take_over()
    learner.issue(ticket(run_id, 0, incarnation=incarnation))
    [order] = actor.read("tickets", 1, 100)
    actor.hand_over(order, rollout(order.ticket))
    scorer = Broker(guarded.addresses["scorer"], run_id, "scorer")
    [made] = scorer.read("rollouts", 1, 100)
    for act in (
        lambda: actor.announce(policy(incarnation, 1)),
        lambda: actor.take_over(),
        lambda: actor.issue(ticket(run_id, 1, incarnation=incarnation)),
        lambda: actor.close(incarnation, [(0, 1, "")]),
        lambda: actor.trim(),
        lambda: actor.finish(),
        lambda: actor.hand_over(made, scored(made.message, 0.5)),
    ):
        with pytest.raises(BrokerUnfit, match=r"has not the rights of its role at .*//hero-actor:.*see hero acl"):
            act()
    assert learner.policy() is None and learner.open_tickets() == {0: ("rollouts", 1)}
    assert scorer.hand_over(made, scored(made.message, 0.5), momentum=0.9), "and none of them did any harm"
    guarded.admin.acl_log_reset()


def test_who_comes_the_wrong_way_is_told_the_remedy(
    guarded: Guarded, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = guarded.addresses["actor"]
    bare, _, query = right.partition("?")
    user, password = re.findall(r"//(.*):(.*)@", right)[0]
    for url, says in (
        (right.replace(password, "guessed"), "refuses the login: .*; set user and password in the URL"),
        (guarded.plain, "refuses the login: .*; set user and password in the URL"),
        (bare, "verify failed: .*; give the authority of its certificate"),
        (bare.replace("127.0.0.1", "localhost") + f"?{query}", "verify failed: .* and the host that it is made out to"),
        (bare.replace("rediss://", "redis://"), "Connection closed.* rediss:// with it"),
        (guarded.plain.replace("redis://", f"rediss://{user}:{password}@") + f"?{query}", "redis:// without TLS"),
    ):
        if "without TLS" in says:  # such a server is silent to one who comes with it
            for timeout in ("READ_TIMEOUT_S", "CONNECT_TIMEOUT_S"):
                monkeypatch.setattr(address, timeout, 0.5)
        with pytest.raises(BrokerUnavailable, match=says) as caught:
            Broker(url, run_id, "actor").check()
        assert password not in str(caught.value)
    guarded.admin.acl_log_reset()


@pytest.mark.parametrize(
    "arguments", ["redis://me:secret@host", "host", "redis://host --x", "redis://host --run *}:* "]
)
def test_hero_acl_refuses_what_it_cannot_use(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["acl", "--url", *arguments.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and ("--url: give" in shown.err or "no such flag" in shown.err or "--run '*}" in shown.err)
