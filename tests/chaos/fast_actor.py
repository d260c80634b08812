"""`python -m tests.chaos.fast_actor SETTINGS --broker.url URL --run.id ID`: the real actor around `FastEngine`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from actors.engine import Engine
from actors.worker import DRAIN_S, Actor
from common import config, logs
from common.errors import HeroError
from common.lifecycle import die_with_parent, stop_on_signals
from common.streams import Broker
from tests.chaos.fast_engine import FastEngine

VOCABULARY = 64


def main(arguments: list[str]) -> int:
    die_with_parent()
    settings = config.load(Path(arguments[0]), arguments[1:])
    logs.start("actor")
    stop = stop_on_signals(2 * DRAIN_S)
    assert settings.broker.url and settings.run.id
    broker = Broker(settings.broker.url, settings.run.id, "actor", stop=stop)
    try:
        broker.check()
        actor = Actor(settings, broker, cast(Engine, FastEngine(VOCABULARY)), stop)
        try:
            actor.loop()
        finally:
            actor.close()
    except HeroError as error:
        return config.fail(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
