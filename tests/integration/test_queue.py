"""`hero queue` on a real server, and what the learner's books make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.streams import Broker
from deploy import cli, queue
from tests import make


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue.out, "_width", 200)


@pytest.fixture
def grave(broker: Broker) -> tuple[Broker, str]:
    """A run with tickets 0 and 1: 0 was given up as a rollout. And the entry of its letter."""
    incarnation = broker.take_over()
    broker.issue_together([make.ticket(broker.run, id, incarnation=incarnation) for id in (0, 1)])
    for order in broker.read("tickets", 1, 100):
        broker.hand_over(order, make.rollout(order.ticket))
    [made] = broker.read("rollouts", 1, 100)
    broker.bury(made, "too strange", "Traceback: here")
    [(entry, _)] = broker.dead_letters()
    return broker, entry


def hero(broker: Broker, *arguments: str) -> int:
    return cli.main(["queue", *arguments, "--run", broker.run, "--url", broker.url])


def test_lag_shows_stages_consumers_and_dead_letters(
    grave: tuple[Broker, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broker, _ = grave
    broker.read("tickets", 1, 100)
    assert hero(broker, "lag") == 0
    text = capsys.readouterr().out
    assert broker.consumer in text and "1 dead letters: hero queue list" in text
    assert hero(broker, "lag", "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert state["stages"]["tickets"] == {"length": 2, "lag": 0, "pending": 1}
    assert [(c["stage"], c["name"], c["pending"]) for c in state["consumers"]] == [
        ("tickets", broker.consumer, 1),
        ("rollouts", broker.consumer, 0),
    ]
    assert all(0 <= c["oldest_s"] < 30 and 0 <= c["idle_s"] < 30 for c in state["consumers"])


def test_lag_shows_groups_that_only_watch(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.issue_together([make.ticket(broker.run, id, incarnation=broker.take_over()) for id in (0,)])
    broker._redis.xgroup_create(broker.key("rollouts"), "shadow\x1b[2J", "0")
    assert hero(broker, "lag") == 0
    text = capsys.readouterr().out
    assert "only watches" in text and "shadow" in text and "\x1b[2J" not in text
    assert hero(broker, "lag", "--json") == 0
    [shadow] = json.loads(capsys.readouterr().out)["shadows"]
    assert shadow == {"stage": "rollouts", "name": "shadow\x1b[2J", "lag": 0, "pending": 0, "lost": 0}


def test_list_and_show(grave: tuple[Broker, str], capsys: pytest.CaptureFixture[str]) -> None:
    broker, entry = grave
    assert hero(broker, "list") == 0
    text = capsys.readouterr().out
    assert entry in text and "too strange" in text and broker.consumer in text
    assert hero(broker, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == 0
    assert hero(broker, "show", entry) == 0
    letter = json.loads(capsys.readouterr().out)
    assert (letter["stage"], letter["attempt"], letter["traceback"]) == ("rollouts", 1, "Traceback: here")
    assert letter["body_bytes"] > 100 and letter["body_base64"]


def test_retry_puts_the_ticket_up_as_the_next_attempt_once(
    grave: tuple[Broker, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broker, entry = grave
    broker.read("tickets", 1, 100)
    assert hero(broker, "retry", entry) == 0
    assert "ticket 0 is up again" in capsys.readouterr().out
    [again] = broker.read("tickets", 5, 100)
    assert (again.ticket.id, again.ticket.attempt, again.ticket.question) == (0, 2, "1 + 1 = ?")
    assert broker.open_tickets()[0] == ("tickets", 2) and broker.dead_letters() == []
    assert hero(broker, "retry", entry) == 13
    assert f"there is no dead letter {entry}" in capsys.readouterr().err


def test_evaluation_is_looked_at_beside_training_and_never_retried(
    grave: tuple[Broker, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broker, entry = grave
    incarnation = broker.take_over()
    broker.issue_together([make.ticket(broker.run, id, lane="eval", incarnation=incarnation) for id in range(3)])
    asked, _ = broker.read("eval:tickets", 2, 100)
    broker.bury(asked, "cannot be asked", "")
    capsys.readouterr()
    assert hero(broker, "lag", "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert state["stages"]["eval:tickets"] == {"length": 3, "lag": 1, "pending": 1}
    assert ("eval:tickets", broker.consumer, 1) in [(c["stage"], c["name"], c["pending"]) for c in state["consumers"]]
    [other] = [entry for entry, letter in broker.dead_letters() if letter.stage == "eval:tickets"]
    assert hero(broker, "retry", other, entry) == 13
    text = capsys.readouterr().out
    assert f"{other}: not retried: evaluation does without it, and its next round asks again" in text
    assert f"{entry}: ticket 0 is up again" in text
    assert broker.open_tickets("eval")[0] == ("dead", 1) and [e for e, _ in broker.dead_letters()] == [other]


def test_a_ticket_that_has_moved_on_is_not_retried(
    grave: tuple[Broker, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broker, entry = grave
    broker._redis.hset(broker.key("open"), 0, "tickets 2")
    assert hero(broker, "retry", entry) == 13
    assert "moved on" in capsys.readouterr().out
    assert [e for e, _ in broker.dead_letters()] == [entry]


def test_what_nobody_can_read_is_not_retried(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.take_over()
    broker._redis.hset(broker.key("open"), 4, "tickets 1")
    broker._redis.xadd(broker.key("tickets"), {"m": b"\xc1", "id": 4, "attempt": 1})
    assert broker.read("tickets", 1, 100) == []
    [(entry, _)] = broker.dead_letters()
    assert hero(broker, "retry", entry) == 13
    assert "no ticket can be read" in capsys.readouterr().out
    assert len(broker.dead_letters()) == 1


def test_nothing_is_retried_in_a_run_that_is_over(grave: tuple[Broker, str]) -> None:
    broker, entry = grave
    broker.finish()
    assert hero(broker, "retry", entry) == 5
    assert len(broker.dead_letters()) == 1


def test_drop_and_purge_forget_letters_and_nothing_else(
    grave: tuple[Broker, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broker, entry = grave
    [other] = broker.read("tickets", 1, 100)
    broker.bury(other, "also strange", "")
    assert hero(broker, "drop", entry) == 0
    assert len(broker.dead_letters()) == 1
    assert hero(broker, "purge") == 0
    assert "1 dropped" in capsys.readouterr().out
    assert broker.dead_letters() == [] and broker.open_tickets() == {0: ("dead", 1), 1: ("dead", 1)}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["show"], 13, "takes an entry"),
        (["lag", "1-0"], 13, "takes no entry"),
        (["drop", "1-0"], 13, "there is no dead letter 1-0"),
        (["lag", "--learner.lr", "1"], 13, "no such flag"),
    ],
)
def test_what_cannot_be_done_is_told(
    broker: Broker, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    broker.take_over()
    assert hero(broker, *arguments) == code
    assert says in capsys.readouterr().err


def test_an_unknown_run_is_refused_and_nothing_is_made_for_it(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["queue", "lag", "--run", "nobody", "--url", broker.url]) == 13
    assert "knows no run nobody" in capsys.readouterr().err
    assert not broker._redis.keys("{nobody}*")


def test_the_folder_of_a_run_names_run_and_server(
    grave: tuple[Broker, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker, entry = grave
    monkeypatch.delenv("REDIS_URL", raising=False)
    (tmp_path / "run.json").write_text(json.dumps({"id": broker.run}))
    assert cli.main(["queue", "list", "--run", str(tmp_path)]) == 6, "a folder whose server is not known"
    (tmp_path / "broker.url").write_text(broker.url + "\n")
    assert cli.main(["queue", "list", "--run", str(tmp_path)]) == 0
    assert entry in capsys.readouterr().out
