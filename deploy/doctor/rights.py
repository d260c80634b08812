"""Which role's work the user can do with whom one comes to the broker: the rights of `hero acl`, asked one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from common.errors import BrokerUnavailable
from common.examiner import Examiner
from common.server import needed_url
from deploy import acl
from deploy.doctor.case import ROLES, Case
from deploy.doctor.finding import Finding, error, ok, skipped

SHOWN = 3
"""Rights that are missing, by name."""
NOTHING = "doctor"
"""A key, a group and a consumer that nobody has."""

HARMLESS = {
    "@connection": "PING",
    "@hash": "HSET {key} field value odd",
    "@list": "LTRIM {key} none none",
    "@set": "SREM {key} none",
    "@sortedset": "ZADD {key} none member",
    "@stream": "XADD {key} * field value odd",
    "@string": "SET {key} value none",
    "cluster|slots": "CLUSTER SLOTS",
    "del": "DEL {key}",
    "evalsha": f"EVALSHA {'0' * 40} 1 {{key}}",
    "exists": "EXISTS {key}",
    "get": "GET {key}",
    "hget": "HGET {key} none",
    "hgetall": "HGETALL {key}",
    "hset": "HSET {key} field value odd",
    "info": "INFO server",
    "lrange": "LRANGE {key} 0 0",
    "pexpire": "PEXPIRE {key} none",
    "script|exists": f"SCRIPT EXISTS {'0' * 40}",
    "script|load": "SCRIPT LOAD (",
    "setnx": "SETNX {key} value",
    "set": "SET {key} value none",
    "smembers": "SMEMBERS {key}",
    "time": "TIME",
    "type": "TYPE {key}",
    "unlink": "UNLINK {key}",
    "xack": "XACK {key} doctor none",
    "xadd": "XADD {key} * field value odd",
    "xclaim": "XCLAIM {key} doctor doctor none none",
    "xdel": "XDEL {key} none",
    "xgroup|create": "XGROUP CREATE {key} doctor none",
    "xgroup|createconsumer": "XGROUP CREATECONSUMER {key} doctor doctor",
    "xgroup|delconsumer": "XGROUP DELCONSUMER {key} doctor doctor",
    "xgroup|destroy": "XGROUP DESTROY {key} doctor",
    "xinfo": "XINFO STREAM {key}",
    "xlen": "XLEN {key}",
    "xpending": "XPENDING {key} doctor",
    "xrange": "XRANGE {key} 0 0",
    "xreadgroup": "XREADGROUP GROUP doctor doctor COUNT none STREAMS {key} >",
    "zadd": "ZADD {key} none member",
    "zcard": "ZCARD {key}",
    "zrange": "ZRANGE {key} 0 0",
    "zrem": "ZREM {key} doctor",
    "zremrangebyscore": "ZREMRANGEBYSCORE {key} none none",
    "zscore": "ZSCORE {key} doctor",
}
"""A command of each right, so written that a server which lets us give it does nothing: it reads, or it is nonsense."""
BY_DRY_RUN_ALONE = {"setnx"}
"""No nonsense is possible here."""
TO_NOBODYS_KEY_ALONE = {"del", "unlink"}
"""What they are granted on is every key of a run, so one that nobody has shows it."""

_SELECTOR = re.compile(r"\(([^)]*)\)")


class Right(NamedTuple):
    """`Right("xadd", "{run}:scored")`; no key where it needs none."""

    command: str
    key: str = ""

    @property
    def words(self) -> list[str]:
        return [word.replace("{key}", self.key) for word in HARMLESS[self.command].split()]

    def __str__(self) -> str:
        return f"{self.command} {self.key}".rstrip()


def rights_of(role: str, run: str) -> list[Right]:
    """What `hero acl` gives a role for this run."""
    rules = acl.rights(run)[role]
    plain = [Right(command) for command in _granted(_SELECTOR.sub("", rules))]
    keyed = [
        Right(command, key)
        for selector in _SELECTOR.findall(rules)
        for key in (word.partition("~")[2].replace("*", NOTHING) for word in selector.split() if "~" in word)
        for command in _granted(selector)
    ]
    return [right for right in dict.fromkeys(plain + keyed) if not _harms(right)]


def rights(case: Case) -> Iterator[Finding]:
    """An error for a role that is to work here and may not."""
    if case.url is None and case.everything:
        yield skipped("rights", "`hero up` starts a server that is its own")
        return
    try:
        server = case.examiner(needed_url(case.settings.broker.url))
        user = server.user()
    except BrokerUnavailable:
        yield skipped("rights", "the broker does not answer, see above")
        return
    dry = user is not None and server.may_by_dry_run(user, ["PING"]) is not None
    who = f"user {user}" if user else "this user"
    how = "ACL DRYRUN" if dry else "harmless calls: it may not ACL DRYRUN"
    able, missing = [], {}
    for role in acl.rights(case.run_id):
        if role == "admin":
            continue
        lacks = [right for right in rights_of(role, case.run_id) if not _may(server, user if dry else None, right)]
        if lacks:
            missing[role] = lacks
        else:
            able.append(role)
    yield ok("rights", f"{who} can do the work of: {', '.join(able) or 'no role'} (found out by {how})")
    for role in ROLES:
        if role in case.roles and role in missing:
            yield _refused(role, who, missing[role], case)


def _refused(role: str, who: str, lacks: list[Right], case: Case) -> Finding:
    more = f" and {len(lacks) - SHOWN} more" if len(lacks) > SHOWN else ""
    found = f"{who} cannot do the {role}'s work: no {', '.join(map(str, lacks[:SHOWN]))}{more}"
    wanted = "hero-learner, as `hero up` does" if case.everything else f"hero-{role}"
    return error("rights", found, f"come as {wanted}; `hero acl` makes these users, run.id has to be one of their runs")


def _may(server: Examiner, user: str | None, right: Right) -> bool:
    """By a dry run for `user`; without one by trying."""
    if user is not None:
        return bool(server.may_by_dry_run(user, right.words))
    return right.command in BY_DRY_RUN_ALONE or server.may_by_trying(right.words)


def _granted(rules: str) -> list[str]:
    return [word[1:] for word in rules.split() if word.startswith("+")]


def _harms(right: Right) -> bool:
    return right.command in TO_NOBODYS_KEY_ALONE and not right.key.endswith(f":{NOTHING}")
