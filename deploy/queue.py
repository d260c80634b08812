"""`hero queue`: how far every stage is behind, who works on it, and what was given up."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from common import logs
from common.errors import QueueError, RunFolderError, SchemaError
from common.lanes import lane_of
from common.schema import DeadLetter
from common.streams import Broker
from common.untrusted import printable
from deploy.living import broker_of

SHOWN_BODY_BYTES = 64 * 2**10

out = Console(soft_wrap=True, highlight=False, markup=False)


def run(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """One action on one run; returns the exit code."""
    if flags:
        raise QueueError(f"{flags[0]}: there is no such flag; see hero queue --help")
    logs.start("queue", "WARNING")  # not among what is printed
    broker = broker_of(arguments.run, arguments.url, "queue")
    action, entries = arguments.action, arguments.entry
    if (action in ("show", "retry", "drop")) != bool(entries):
        raise QueueError(f"hero queue {action} takes " + ("no entry" if entries else "an entry, see hero queue list"))
    if action == "lag":
        _show_lag(broker, arguments.json)
    elif action == "list":
        _show_letters(dict(_every_letter(broker)), broker.now_ms(), arguments.json)
    elif action == "purge":
        _purge(broker)
    else:
        letters = _letters(broker, entries)
        if action == "show":
            for entry, letter in letters.items():
                print(json.dumps({"entry": entry, **_fields(letter)}, indent=1))
        elif action == "drop":
            out.print(f"{broker.drop(list(letters))} dropped; the books keep their tickets as dead-lettered")
        else:
            return _retry(broker, letters)
    return 0


def _every_letter(broker: Broker) -> Iterator[tuple[str, DeadLetter]]:
    last = "0"
    while page := broker.dead_letters(last):
        yield from page
        last = page[-1][0]


def _letters(broker: Broker, entries: Sequence[str]) -> dict[str, DeadLetter]:
    known = dict(_every_letter(broker))
    if missing := [entry for entry in entries if entry not in known]:
        raise QueueError(f"there is no dead letter {', '.join(missing)} in run {broker.run}; see hero queue list")
    return {entry: known[entry] for entry in entries}


def _show_lag(broker: Broker, as_json: bool) -> None:
    backlog, consumers, processes = broker.backlog(), broker.consumers(), broker.processes()
    shadows, dead = broker.shadows(), broker.dead_count()
    if as_json:
        known = {"stages": backlog, "consumers": consumers, "processes": processes, "shadows": shadows}
        print(json.dumps(known | {"dead_letters": dead}))
        return
    stages = Table("stage", "entries", "lag: not delivered", "pending: being worked on", title=f"run {broker.run}")
    for stage, state in backlog.items():
        stages.add_row(stage, *("?" if state[k] is None else str(state[k]) for k in ("length", "lag", "pending")))
    out.print(stages)
    people = Table("consumer", "of", "pending", "oldest lease", "idle")
    for c in consumers:
        people.add_row(
            printable(c["name"]), c["stage"], str(c["pending"]), f"{c['oldest_s']:.1f} s", f"{c['idle_s']:.1f} s"
        )
    out.print(people)
    alive = Table("process", "role", "last heard of", "waits for", "since", "until")
    for name, state in processes.items():
        waits_s, heard_s = state.get("waits_s"), state["heard_s"]
        since = "" if waits_s is None else f"{waits_s + heard_s:.0f} s"
        what, until = (state.get(name) or "" for name in ("waits_for", "waits_until"))
        words = (name, state["role"], f"{heard_s:.0f} s ago", what, since, until)
        alive.add_row(*map(printable, words))
    out.print(alive)
    if shadows:
        watching = Table("group that only watches", "of", "lag", "pending", "lost: trimmed before it was read")
        for shadow in shadows:
            lag = "?" if shadow["lag"] is None else str(shadow["lag"])
            name, stage, pending, lost = (str(shadow[k]) for k in ("name", "stage", "pending", "lost"))
            watching.add_row(printable(name), stage, lag, pending, lost)
        out.print(watching)
    out.print(f"{dead} dead letters" + (": hero queue list" if dead else ""))


def _show_letters(letters: dict[str, DeadLetter], now_ms: int, as_json: bool) -> None:
    if as_json:
        for entry, letter in letters.items():
            print(json.dumps({"entry": entry, **_fields(letter, body=False)}))
        return
    table = Table("entry", "stage", "ticket", "attempt", "age", "given up by", "reason")
    for entry, letter in letters.items():
        age = max(0, now_ms - int(entry.split("-")[0])) / 1000
        id, attempt = ("?" if n is None else str(n) for n in (letter.id, letter.attempt))
        words = (entry, letter.stage, id, attempt, f"{age:.0f} s", letter.origin, letter.reason[:200])
        table.add_row(*map(printable, words))
    out.print(table if letters else "no dead letters")


def _fields(letter: DeadLetter, *, body: bool = True) -> dict[str, Any]:
    fields = {name: value for name, value in vars(letter).items() if name != "body"}
    if body:
        fields |= {
            "body_bytes": len(letter.body),
            "body_base64": base64.b64encode(letter.body[:SHOWN_BODY_BYTES]).decode(),
        }
    return fields


def _retry(broker: Broker, letters: dict[str, DeadLetter]) -> int:
    if broker.over():
        raise RunFolderError(f"run {broker.run} is over: nobody would work on a ticket; train on with more run.steps")
    failed = 0
    for entry, letter in letters.items():
        refused = _refused(broker, entry, letter)
        failed += bool(refused)
        out.print(f"{entry}: " + (f"not retried: {refused}" if refused else f"ticket {letter.id} is up again"))
    return QueueError.exit_code if failed else 0


def _refused(broker: Broker, entry: str, letter: DeadLetter) -> str:
    """Puts the letter's ticket up again: "", or why it was not."""
    if lane_of(letter.stage) == "eval":
        return "evaluation does without it, and its next round asks again"
    try:
        return "" if broker.retry(entry, letter) else "its ticket has moved on"
    except SchemaError as error:
        return f"no ticket can be read from it ({error}); the learner has issued another in its place"


def _purge(broker: Broker) -> None:
    dropped = 0
    while letters := broker.dead_letters():
        dropped += broker.drop([entry for entry, _ in letters])
    out.print(f"{dropped} dropped; the books keep their tickets as dead-lettered")
