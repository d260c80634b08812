"""`hero acl`: users for the broker's ACL file, each with the rights of one role and no more.

Scripts give no rights: the server checks every command inside one against the user who called it. So a worker may call
any script of ours and still changes only what its role changes: an actor takes tickets and publishes rollouts, and can
neither read scored groups nor announce a policy nor fence off the learner. `hero up` works with the learner's user.

Rights end at a stream, they know no consumer group: the shadow's user, who can write no entry and no other key, could
still read scored groups in the learner's name, which then never reach it, or destroy its group. Give it only to whom
you trust with the run. The viewer's may read everything and change nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys
from collections.abc import Sequence

from common.address import parted
from common.errors import ConfigError
from common.lanes import GROUPS, LANES, named

CONNECT = "+@connection -@dangerous +info +time +cluster|slots +script|load +script|exists"
LEASES = "+xreadgroup +xack +xclaim +xpending +xgroup|delconsumer"
LEARNER = "+evalsha +exists +del +unlink +pexpire +type +@stream +@hash +@string +@set +@sortedset +@list"
SHADOW = "+evalsha +xreadgroup +xgroup|create +xgroup|createconsumer +xgroup|delconsumer +xgroup|destroy"
READ = "+exists +type +get +hget +hgetall +xinfo +xlen"
LOOK = "+xpending +xrange +lrange +smembers +zrange"
TICKETS, ROLLOUTS, SCORED = ([named(lane, stage) for lane in LANES] for stage in ("tickets", "rollouts", "scored"))


def rights(run: str) -> dict[str, str]:
    """Role to its rules (Redis >= 7 selectors), for the runs whose id matches the glob `run`."""

    def on(commands: str, *names: str) -> str:
        return f"({commands} {' '.join(f'~{{{run}}}:{name}' for name in names)})"

    everybody = " ".join(
        (
            CONNECT,
            on("+evalsha", "*"),
            f"({READ} %R~{{{run}}}:*)",
            on("+xgroup|create", *GROUPS),  # a server that lost its data, whoever sees it first
            on("+hset", "procs", "open", "eval:open"),
        )
    )
    marks = on("+zadd +zrem +zremrangebyscore +zscore +zcard +zrange", "reading", "relays", "ring:wishes")
    weights = f"{on('+set', 'weights:wanted')} {on('+setnx', 'relays:secret')} {marks}"
    return {
        "admin": "~* &* +@all",
        "learner": f"{CONNECT} {on(LEARNER, '*')}",
        "actor": f"{everybody} {on(LEASES, *TICKETS)} {on('+xadd', *ROLLOUTS, 'dead')} {weights}",
        "scorer": f"{everybody} {on(LEASES, *ROLLOUTS)} {on('+xadd', *SCORED, 'dead')} {on('+set', 'sigma')}",
        "shadow": f"{CONNECT} (+exists +type +xinfo %R~{{{run}}}:*) (+hget %R~{{{run}}}:lost) " + on(SHADOW, "scored"),
        "viewer": f"{CONNECT} {on('+evalsha', '*')} ({READ} {LOOK} %R~{{{run}}}:*)",
        "queue": f"{everybody} {on('+xpending', '*')} {on('+xadd', 'tickets')} {on('+xrange +xdel', 'dead')}",
    }


def address(url: str, user: str, password: str) -> str:
    """`url` with this user. Raises ConfigError when it has one already."""
    scheme, netloc, rest = parted(url)
    if "@" in netloc or not netloc:
        raise ConfigError("--url: give the broker's address without a user, e.g. rediss://head:6379/0")
    return f"{scheme}://{user}:{password}@{netloc}{rest}"


def run(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """The ACL file on standard output, each user's address with its password on standard error."""
    if flags:
        raise ConfigError(f"{flags[0]}: there is no such flag; see hero acl --help")
    if not re.fullmatch(r"[A-Za-z0-9_.*?-]+", arguments.run):
        raise ConfigError(
            f"--run {arguments.run!r}: ids of runs have letters, digits and _.- and may hold * and ? here"
        )
    lines, addresses = ["user default off"], []
    for role, rules in rights(arguments.run).items():
        password = secrets.token_urlsafe(24)
        lines.append(f"user hero-{role} on #{hashlib.sha256(password.encode()).hexdigest()} {rules}")
        addresses.append(f"{role:<8} {address(arguments.url, f'hero-{role}', password)}")
    print("\n".join(lines))
    print("\n".join(addresses), file=sys.stderr)
    return 0
