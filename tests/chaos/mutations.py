"""`python -m tests.chaos.mutations [NAME ...]`: the soak can fail. Each promise is broken in a copy of the code, once.

One JSON line for each mutation: what the soak found, after how many kills and seconds. Exit code 1 if one stays unseen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.audit import FINDINGS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("actors", "common", "deploy", "learner", "scorer", "tests")
KILLS = (10, 30, 60)  # one soak after the other until one is red
DEADLINE_S = 1800


@dataclass(frozen=True)
class Mutation:
    """`before` stands once in `file` and becomes `after`."""

    file: str
    before: str
    after: str


MUTATIONS = {
    # Whoever dies while it works takes the message along.
    "acknowledge_before_publishing": Mutation(
        "common/deliveries.py",
        "        return self._deliveries(stage, entries_of(raw), {})\n",
        "        found = self._deliveries(stage, entries_of(raw), {})\n"
        "        if found and not stage.endswith('scored'):\n"
        "            self._do('xack', self.key(stage), GROUPS[stage], *[d.entry for d in found])\n"
        "        return found\n",
    ),
    # A worker that was robbed of its lease publishes a second result.
    "no_stage_check": Mutation(
        "common/lua/hand_over.lua", "if open ~= ARGV[5] .. ' ' .. ARGV[4] then", "if false then"
    ),
    # What was trained since the last checkpoint is gone with the learner, and nobody has it any more.
    "acknowledge_before_the_checkpoint": Mutation(
        "learner/commit.py",
        "        self._settled[lane].append((id, attempt, entry))\n",
        "        self._settled[lane].append((id, attempt, entry))\n"
        "        lost = '' if lane == 'train' else 'eval:'\n"
        "        self._broker._do('hdel', self._broker.key(lost + 'open'), id)\n"
        "        if entry:\n"
        "            self._broker._do('xack', self._broker.key(lost + 'scored'), 'learner', entry)\n",
    ),
    # Entries that nobody has read yet are cut off.
    "trim_by_maxlen": Mutation(
        "common/lua/trim.lua",
        "redis.call('XTRIM', KEYS[1], 'MINID', keep_from)",
        "redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)",
    ),
}


def mutated(mutation: Mutation, folder: Path) -> Path:
    """A copy of the code with one promise broken."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / mutation.file
    text = file.read_text()
    if text.count(mutation.before) != 1:
        raise RuntimeError(f"{mutation.file} holds {text.count(mutation.before)} times what is to be broken")
    file.write_text(text.replace(mutation.before, mutation.after))
    return folder


def found_in(folder: Path, kills: int) -> dict[str, int]:
    """What a soak of the code in this folder finds in the books; a mere delay, or an end of its own, is not enough."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.soak", "--kills", str(kills), "--seed", "0", "--minutes", "20"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the soak itself failed with exit code {done.returncode}")
    result = json.loads(done.stdout.splitlines()[-1])
    return {kind: result[kind] for kind in FINDINGS if result[kind]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutations", description=__doc__)
    told = f"of {', '.join(MUTATIONS)}; all unless named"
    parser.add_argument("name", nargs="*", choices=[[], *MUTATIONS], metavar="NAME", help=told)
    unseen = 0
    for name in parser.parse_args(argv).name or MUTATIONS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
            folder = mutated(MUTATIONS[name], Path(temporary))
            for kills in KILLS:
                found = found_in(folder, kills)
                if red := bool(found.keys() - {"violations"}):
                    break
        unseen += not red
        seconds = round(time.monotonic() - started)
        told = {"mutation": name, "red": red, "found": found, "kills": kills, "seconds": seconds}
        print(json.dumps(told), flush=True)
    return 1 if unseen else 0


if __name__ == "__main__":
    raise SystemExit(main())
