"""The arguments of each `hero` command, and the help that teaches it."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.commands import Command


def parser(name: str, command: Command, with_settings: bool) -> argparse.ArgumentParser:
    epilog = f"examples:\n{command.examples}\n"
    if with_settings and command.sections:
        from common import config

        epilog += "\nsettings (TOML section, default, meaning); each is a flag and an environment variable too:\n"
        epilog += config.describe(command.sections)
    found = argparse.ArgumentParser(
        prog=f"hero {name}",
        description=command.summary,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if name == "score":
        found.add_argument("file", type=Path, nargs="?", help="JSONL rows, .gz too")
        found.add_argument("--from-run", type=Path, metavar="RUN", help="the reward log of this run instead of a file")
        found.add_argument("--out", type=Path, help="where the scored rows go (default: standard output)")
        found.add_argument("--config", type=Path, help="TOML file with [verifier], [reward_model], [reward]")
        found.add_argument("--explain", type=int, metavar="ROW", help="show how row ROW, from 1, came to its rewards")
    elif name == "eval":
        found.add_argument(
            "models", nargs="*", metavar="MODEL", help="folder, hub name or run; NAME=MODEL gives a name"
        )
        found.add_argument("--data", nargs="+", metavar="SET", help="JSONL file (.gz too), hub:NAME, reasoning-gym")
        found.add_argument(
            "--config", type=Path, help="TOML file (default: the settings of the first run among MODELs)"
        )
        found.add_argument("--out", type=Path, default=Path("eval"), help="folder of the results (default: eval)")
        found.add_argument(
            "--from", type=Path, dest="source", metavar="OUT", help="only the tables and the picture again"
        )
    elif name == "compare":
        found.add_argument("run", type=Path, help="folder of a run")
        found.add_argument("--plot", type=Path, help="where the picture goes (default: compare.png in that folder)")
    elif name == "shadow":
        found.add_argument("config", type=Path, nargs="?", help="the second configuration (default: the run's own)")
        found.add_argument("--run", required=True, help="id of the run, or its folder")
        found.add_argument("--url", help="the broker (default: REDIS_URL, else the server of the run's folder)")
        found.add_argument("--first", type=Path, metavar="FILE", help="the run's own settings, where its folder is not")
        found.add_argument(
            "--name", default="second", help="of this shadow, of which a run may have several (default: second)"
        )
        found.add_argument("--groups", type=int, metavar="N", help="end after so many")
        found.add_argument(
            "--from-now", action="store_true", help="begin with what comes, not with what is still there"
        )
        found.add_argument("--keep", action="store_true", help="keep its place; the same command goes on there")
        found.add_argument("--out", type=Path, help="log and picture (default: RUN/shadow/NAME, or ./shadow-NAME)")
    elif name == "queue":
        found.add_argument("action", choices=("lag", "list", "show", "retry", "drop", "purge"))
        found.add_argument("entry", nargs="*", help="dead letters, as `hero queue list` names them")
        found.add_argument("--run", help="id of the run, or its folder (default: the only one that the broker has)")
        found.add_argument("--url", help="the broker (default: REDIS_URL, else the server of the run's folder)")
        found.add_argument("--json", action="store_true", help="lag, list: JSON instead of tables")
    elif name == "top":
        found.add_argument("--run", help="id of the run, or its folder (default: the only one that the broker has)")
        found.add_argument("--url", help="the broker (default: REDIS_URL, else the server of the run's folder)")
        found.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between looks (default: 1)")
        found.add_argument("--once", action="store_true", help="look once, print, end; so it is on a pipe anyway")
        found.add_argument("--json", action="store_true", help="once, as JSON")
    elif name == "report":
        found.add_argument(
            "runs", type=Path, nargs="*", metavar="RUN", help="folders of runs (default: the newest below runs/)"
        )
        found.add_argument("--out", type=Path, help="the page (default: RUN/report.html; of several ./report.html)")
        found.add_argument("--follow", action="store_true", help="write it anew until the run is finished, or Ctrl-C")
        found.add_argument("--every", type=float, default=10.0, metavar="S", help="of --follow, seconds (default: 10)")
    elif name == "acl":
        found.add_argument("--url", required=True, help="the broker's address without a user")
        found.add_argument("--run", default="*", help="glob of the ids of runs (default: all)")
    else:
        found.add_argument("config", type=Path, nargs="?", help="TOML file; deploy/configs/ has examples")
    if name == "doctor":
        from deploy.doctor.checks import CHECKS

        found.add_argument(
            "--role", choices=("learner", "actor", "scorer", "all"), default="all", help="what shall work here"
        )
        found.add_argument("--only", metavar="CHECK,...", help=f"of {', '.join(CHECKS)}")
        found.add_argument("--strict", action="store_true", help="exit code 1 for a warning, too")
        found.add_argument("--json", action="store_true", help="JSON instead of the table")
    if name == "up":
        found.add_argument("--dry-run", action="store_true", help="check the settings and print them; start nothing")
        found.add_argument("--autoscale", metavar="MOST", help="short for --scorer.most: scorers come and go with lag")
    found.set_defaults(rewards=None, autoscale=None)
    if command.sections:
        about = "short for --reward.mode" if "reward" in command.sections else argparse.SUPPRESS
        found.add_argument("--rewards", choices=("hero", "verifier", "rm", "blend"), help=about)
    return found
