"""`hero top`: live on a terminal, once elsewhere, or as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from common import logs
from common.errors import QueueError
from common.onlooker import Onlooker
from deploy.living import broker_of
from deploy.monitor.overview import WIDTH, overview, page
from deploy.monitor.snapshot import Looker
from deploy.monitor.spark import BARS, PLAIN

BETWEEN_LOOKS_S = 2.5
"""Of `--once`: heartbeats come every second, a rate needs two of them."""


def run(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Returns the exit code."""
    if flags:
        raise QueueError(f"{flags[0]}: there is no such flag; see hero top --help")
    logs.start("top", "ERROR")  # not across the picture
    broker = broker_of(arguments.run, arguments.url, "top", Onlooker)
    out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    bars = BARS if "utf" in (out.encoding or "").lower() else PLAIN
    if arguments.json or arguments.once or not out.is_terminal:
        looker = Looker(broker)
        looker.look()
        time.sleep(BETWEEN_LOOKS_S)
        seen = looker.look()
        if arguments.json:
            print(json.dumps(dataclasses.asdict(seen)))
        else:
            out.print(page(*overview(seen, bars)))
        return 0
    from deploy.monitor.screen import Top

    Top(broker, arguments.every, bars).run()
    return 0
