"""`hero up`: a whole run on one machine, from the first evaluation to the closing table."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from common import config, logs, tracing
from common.errors import ChildFailed
from common.extras import needs
from common.lifecycle import stop_on_signals
from common.models import local_folder
from common.server import LocalServer, configured_url
from common.settings import Sections
from common.streams import Broker
from common.weights.folder import default_folder
from deploy import prepare
from deploy.children import Children
from deploy.cores import Cores, current, divide, keep_to
from deploy.evaluation import rows, sets
from deploy.evaluation import run as evaluation
from deploy.run_folder import note_broker_url, open_run, write_atomically
from deploy.scaling import Scaling
from deploy.show import closing_table, console, draw_curves
from deploy.summary import summarize
from deploy.watch import Watch
from learner import curves
from learner.json_lines import lines_by_step

LOOK_EVERY_S = 0.25
EVALUATION = "eval"
"""Folder of the evaluation in that of the run."""

log = structlog.get_logger("up")


def dry_run(settings: Sections) -> int:
    """Accepts or refuses the settings without starting anything: prints what would run."""
    _check_packages(settings)
    console.print_json(config.dump(settings))
    console.print(
        f"settings accepted: {settings.actor.count} actor(s), {settings.scorer.count} scorer(s), one learner "
        f"of {settings.learner.ranks} rank(s), "
        f"{settings.run.steps} steps of {settings.learner.groups_per_step} groups of {settings.sampling.completions}; "
        "nothing was started",
        soft_wrap=True,
    )
    return 0


def run(settings: Sections) -> int:
    """Runs to the end, or until a signal; returns the exit code. The same command resumes."""
    logs.start("up", "WARNING")
    stop = stop_on_signals()
    _check_packages(settings)
    model = local_folder(settings.model.policy, "model.policy", settings.model.revision)  # before a folder is for it
    run_id, resumed = open_run(settings)
    folder = settings.run.folder
    settings_file = folder / "settings.json"
    write_atomically(settings_file, config.dump(settings))
    console.print(f"run {run_id} in {folder}" + (", resumed" if resumed else ""), highlight=False)
    prompts = prepare.prompts(settings, console)
    console.print(f"{len(prompts):,} prompts", highlight=False)
    around_training = bool(settings.eval.sets) and settings.eval.around_training
    if around_training:
        sets.prepare(settings, folder / EVALUATION, console)
        _evaluate(settings, {"before": model}, stop)
    if stop.is_set():
        return 0
    started = time.monotonic()
    cores = _cores(settings)
    with keep_to(cores.others), _broker_url(settings, folder) as url:
        broker = Broker(url, run_id, "up", stop=stop)
        broker.check()
        children = Children(folder / "logs", {"REDIS_URL": url})  # which may hold a password
        start_scorer = _start(children, settings, settings_file, run_id, cores)
        scaling = Scaling(settings.scorer, broker, children, start_scorer, folder)
        watch = Watch(settings, broker)
        try:
            with watch.bar:
                while not stop.is_set() and not children.learner_ended():
                    children.restart_dead(broker.over)
                    children.bound_logs()
                    scaling.look()
                    watch.look()
                    stop.wait(LOOK_EVERY_S)
                if stop.is_set():
                    console.print("asked to stop: the learner checkpoints, workers hand back; the same command resumes")
                    children.stop(["learner"])
                watch.look()
        finally:
            children.stop(["learner"])
            children.stop()
        worst = watch.worst_difference()
    code = children.exit_code("learner")
    if code and not (stop.is_set() and code == -signal.SIGTERM):  # it was stopped before it could listen
        raise ChildFailed(
            f"the learner ended with exit code {code}; the same command resumes. Its last words:\n"
            f"{children.last_words('learner')}"
        )
    if stop.is_set():
        return 0
    trained = time.monotonic() - started
    found = _evaluate(settings, {"after": folder / "export"}, stop) if around_training else None
    if stop.is_set():
        return 0
    if settings.weights.folder is None:
        shutil.rmtree(default_folder(run_id, folder), ignore_errors=True)
    shutil.rmtree(folder / "broker", ignore_errors=True)
    summary = summarize(settings, run_id, found, trained, worst)
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1))
    draw_curves(lines_by_step(folder / "metrics.jsonl"), summary, folder / "curves.png")
    console.print(closing_table(summary))
    console.print(
        f"model: {folder / 'export'}   figures: {folder / 'summary.json'}   picture: {folder / 'curves.png'}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _check_packages(settings: Sections) -> None:
    """Raises ConfigError for what the settings ask for and no process of the run could have."""
    curves.check(settings)
    tracing.check(settings)
    if rank := settings.learner.lora_rank:
        needs(f"learner.lora_rank = {rank}", "peft", "lora")


@contextmanager
def _broker_url(settings: Sections, folder: Path) -> Iterator[str]:
    """The user's broker, or one of our own for as long as the run lasts."""
    url = configured_url(settings.broker.url)
    if url:
        yield url
        return
    memory_mb, log_file = settings.broker.memory_mb, folder / "broker.log"
    with LocalServer(folder / "broker", memory_mb, append_only=True, log=log_file) as server:
        server.keep_alive()
        note_broker_url(folder, server.url)
        yield server.url


def _cores(settings: Sections) -> Cores:
    """Where actors and all others run: apart when [actor] asks for it and the machine has cores enough."""
    actors, threads = settings.actor.count, settings.actor.threads
    learner_threads = settings.learner.threads * settings.learner.ranks
    shared = Cores([current()] * actors, current())
    if not settings.actor.own_cores:
        return shared
    apart = divide(sorted(current()), actors=actors, actor_threads=threads, learner_threads=learner_threads)
    if apart is None:
        console.print(
            f"actor.own_cores: {actors * threads} for actors and {learner_threads} for the learner are more "
            f"than this machine's {len(current())} cores, so all are shared",
            soft_wrap=True,
        )
    return apart or shared


def _start(children: Children, settings: Sections, file: Path, run_id: str, cores: Cores) -> Callable[[str], None]:
    """Starts everybody. Returns what starts one scorer more, by its name."""
    common = [str(file), "--run.id", run_id]
    learner = settings.learner
    ports = _ports(settings)
    children.start("learner", ["learner", *common, *next(ports)], learner.threads, ranks=learner.ranks)
    actors = [f"actor-{number}" for number in range(settings.actor.count)]
    for name, own in zip(actors, cores.actors, strict=True):
        children.start(name, ["actor", *common, *next(ports)], settings.actor.threads, own)

    def start_scorer(name: str) -> None:
        children.start(name, ["scorer", *common, *next(ports)], settings.scorer.threads)

    for number in range(settings.scorer.count):
        start_scorer(f"scorer-{number}")
    return start_scorer


def _ports(settings: Sections) -> Iterator[list[str]]:
    """The flags that give each process a port of its own."""
    first = settings.metrics.port
    for number in itertools.count():
        yield ["--metrics.port", str(first + number)] if first else []


def _evaluate(settings: Sections, models: dict[str, Path], stop: threading.Event) -> dict[str, Any] | None:
    """Held-out accuracy of these and of what an earlier start of this run evaluated; None after a stop."""
    out = settings.run.folder / EVALUATION
    if code := evaluation.evaluate(settings, out, models, stop):
        raise ChildFailed(f"the evaluation of {', '.join(models)} ended with exit code {code}; its error is above")
    if stop.is_set():
        return None
    return evaluation.conclude(out, rows.present(out, ["before", "after"], settings.eval.sets), settings.eval.k)
