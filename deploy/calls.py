"""What each command of `hero` calls. Imports wait until then: `hero --help` answers at once."""

from __future__ import annotations

import argparse
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from common import logs

if TYPE_CHECKING:
    from common.settings import Sections

Call = Callable[[argparse.Namespace, list[str]], int]
"""Of arguments and settings' flags; returns the exit code."""


def at(place: str) -> Call:
    """The function there: `at("deploy.queue:run")`."""

    def run(arguments: argparse.Namespace, flags: list[str]) -> int:
        code: int = pkgutil.resolve_name(place)(arguments, flags)
        return code

    return run


def _settings(arguments: argparse.Namespace, flags: list[str]) -> Sections:
    from common import config

    return config.load(arguments.config, flags)


def up(arguments: argparse.Namespace, flags: list[str]) -> int:
    from deploy import up

    settings = _settings(arguments, flags)
    return up.dry_run(settings) if arguments.dry_run else up.run(settings)


def worker(role: str) -> Call:
    def run(arguments: argparse.Namespace, flags: list[str]) -> int:
        from common import tracing
        from common.server import needed_url
        from deploy.run_folder import run_id_of

        stop = None
        if role == "actor" and arguments.config is None:
            from common.lifecycle import stop_on_signals
            from deploy.join import settings_of_run

            logs.start(role)
            stop = stop_on_signals()
            settings = settings_of_run(flags, stop)
        else:
            settings = _settings(arguments, flags)
        logs.start(role)
        tracing.check(settings)
        if role == "learner":
            from deploy import learner

            return learner.run(settings)
        url = needed_url(settings.broker.url)
        if role == "actor":
            from actors.worker import run as run_actor

            return run_actor(settings, url, run_id_of(settings), stop)
        from scorer.worker import run as run_scorer

        return run_scorer(settings, url, run_id_of(settings))

    return run


def sft(arguments: argparse.Namespace, flags: list[str]) -> int:
    from deploy import cold_start

    return cold_start.sft(_settings(arguments, flags))


def rm(arguments: argparse.Namespace, flags: list[str]) -> int:
    from deploy.train_rm import rm

    return rm(_settings(arguments, flags))
