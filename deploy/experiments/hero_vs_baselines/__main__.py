"""`python -m deploy.experiments.hero_vs_baselines`: runs the cells that are missing, then says what they show."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence
from pathlib import Path

from common import config, logs
from common.errors import ConfigError, HeroError
from common.lifecycle import stop_on_signals
from common.progress import Bars
from deploy.experiments.hero_vs_baselines import analysis, cell, protocol, report
from deploy.experiments.hero_vs_baselines.hero import Stopped
from deploy.experiments.hero_vs_baselines.prepare import prepare
from deploy.experiments.hero_vs_baselines.protocol import Cell
from deploy.experiments.hero_vs_baselines.results import Results
from deploy.show import console

_EPILOG = """examples:
  python -m deploy.experiments.hero_vs_baselines                       4 arms x 3 regimes x 5 seeds: hours on two cores
  python -m deploy.experiments.hero_vs_baselines --arms further        HERO with the gate's own labels, and the oracle
  python -m deploy.experiments.hero_vs_baselines --arms ablations      where HERO gained most; after the main cells
  python -m deploy.experiments.hero_vs_baselines --only hero-hard-3    one cell: ARM-REGIME-SEED
  python -m deploy.experiments.hero_vs_baselines --arms none           tables and report from what is there

Stop it whenever you like: finished cells are in OUT/results.json, and the same command goes on with the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parser().parse_args(arguments)
    logs.quiet_libraries()
    try:
        return _run(given)
    except HeroError as error:
        return config.fail(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.experiments.hero_vs_baselines", description=__doc__, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--arms", choices=("main", "further", "ablations", "none"), default="main")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(protocol.SEEDS), metavar="SEED")
    parser.add_argument("--only", metavar="CELL", help="this cell alone")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/hero_vs_baselines"), help="policies, reward models, runs"
    )
    parser.add_argument("--results", type=Path, help="instead of OUT/results.json; report.html goes beside it")
    return parser


def _run(given: argparse.Namespace) -> int:
    results = Results(given.results or given.out / "results.json")
    wanted = [one for one in _wanted(given, results) if not results.has(one)]
    stop = stop_on_signals()
    with Bars(console=console) as bars:
        done = bars.add_task("cells", total=len(wanted))
        for one in wanted:
            try:
                _one(one, given.out, results, bars, stop)
            except Stopped:
                console.print(
                    f"stopped; what is finished is in {results.file}, the same command goes on", highlight=False
                )
                return 130
            bars.advance(done)
    if results.runs:
        for table in report.tables(results):
            console.print(table)
        page = report.write(results, results.file.with_name("report.html"))
        console.print(f"results: {results.file}   report: {page}", highlight=False, soft_wrap=True)
    return 0


def _one(one: Cell, out: Path, results: Results, bars: Bars, stop: threading.Event) -> None:
    """Runs a cell and keeps its result. Raises Stopped."""
    steps = bars.add_task(one.name, total=protocol.EVALUATED_AT[-1])

    def look(count: int = 0) -> None:
        if stop.is_set():
            raise Stopped
        bars.update(steps, completed=count)

    def say(what: str) -> None:
        bars.update(steps, description=f"seed {one.seed}: {what}")

    inputs, known = prepare(one.seed, out, say, look)
    results.knows(one.seed, known)
    say(one.name)
    results.add(cell.run(one, inputs, out, look))
    bars.remove_task(steps)


def _wanted(given: argparse.Namespace, results: Results) -> list[Cell]:
    if given.only:
        return [_named(given.only)]
    match given.arms:
        case "main":
            return protocol.main_cells(given.seeds)
        case "further":
            return protocol.further_cells(given.seeds)
        case "ablations":
            return protocol.ablation_cells(analysis.where_hero_gained_most(results), given.seeds)
    return []


def _named(text: str) -> Cell:
    match text.split("-"):
        case [arm, regime, seed] if arm in protocol.ARMS and regime in protocol.REGIMES and seed.isdigit():
            return Cell(arm, regime, int(seed))
    raise ConfigError(
        f"--only {text}: a cell is ARM-REGIME-SEED, e.g. hero-hard-3; arms: {', '.join(protocol.ARMS)}; "
        f"regimes: {', '.join(protocol.REGIMES)}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
