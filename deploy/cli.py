"""The `hero` command. Nothing heavy is imported before the command is known."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from common import logs
from common.errors import HeroError
from deploy.arguments import parser
from deploy.commands import COMMANDS

_SETTING = re.compile(r"--\w+\.[\w.]+")


def settings_apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each `--section.key value` as one word, and all other words.

    Apart: argparse would take the value for a file where that may be left out, and a word with a space in it, as in
    --eval.k=[4, 8], for a positional one.
    """
    whole: list[str] = []
    for word in arguments:
        if whole and _SETTING.fullmatch(whole[-1]) and not word.startswith("--"):
            whole[-1] += f"={word}"
        else:
            whole.append(word)
    return [word for word in whole if _SETTING.match(word)], [word for word in whole if not _SETTING.match(word)]


def main(argv: Sequence[str] | None = None) -> int:
    logs.quiet_libraries()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        lines = "\n".join(f"  {name:<8} {command.summary}" for name, command in COMMANDS.items())
        print(
            f"usage: hero COMMAND ...\n\n{lines}\n\n`hero COMMAND --help` shows examples and its settings.",
            file=sys.stderr,
        )
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    name = arguments[0]
    command = COMMANDS[name]
    wants_help = any(a in ("-h", "--help") for a in arguments[1:])
    settings, others = settings_apart(arguments[1:])
    parsed, unknown = parser(name, command, wants_help).parse_known_args(others)
    flags = [*settings, *unknown]
    if parsed.rewards:
        flags += ["--reward.mode", parsed.rewards]
    if parsed.autoscale:
        flags += ["--scorer.most", parsed.autoscale]
    try:
        return command.run(parsed, flags)
    except HeroError as error:
        from common import config

        return config.fail(error)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
