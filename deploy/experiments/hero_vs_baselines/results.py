"""results.json: `{"protocol": ..., "seeds": {...}, "runs": [...]}`, written whole after every cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.errors import RunFolderError
from deploy.experiments.hero_vs_baselines import protocol
from deploy.experiments.hero_vs_baselines.protocol import Cell
from deploy.run_folder import write_atomically

Run = dict[str, Any]
DIGITS = 5


class Results:
    """The finished cells. What is in the file is not run again."""

    def __init__(self, file: Path) -> None:
        """Raises RunFolderError for a file of another protocol: its runs and ours could not be compared."""
        self.file = file
        self.seeds: dict[str, Any] = {}
        self.runs: list[Run] = []
        own = _plain(protocol.described())
        if file.is_file():
            try:
                found = json.loads(file.read_text())
                held, self.seeds, self.runs = found["protocol"], found["seeds"], found["runs"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunFolderError(
                    f"{file} holds no results of this experiment: {error!r}; name another file"
                ) from error
            if held != own:
                raise RunFolderError(f"{file} was made by another protocol: name another file, or check its commit out")
        self._protocol = own

    def has(self, cell: Cell) -> bool:
        return any(of(run) == cell for run in self.runs)

    def knows(self, seed: int, inputs: dict[str, Any]) -> None:
        """What is known of a seed's policy and reward models."""
        if self.seeds.get(str(seed)) != (plain := _plain(inputs)):
            self.seeds[str(seed)] = plain
            self._save()

    def add(self, run: Run) -> None:
        """Takes the place of an earlier run of the same cell."""
        self.runs = [one for one in self.runs if of(one) != of(run)] + [run]
        self._save()

    def _save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        runs = sorted(self.runs, key=lambda run: (run["regime"], run["mode"], run["seed"]))
        lines = ",\n".join(json.dumps(_plain(run), separators=(",", ":")) for run in runs)
        head = json.dumps({"protocol": self._protocol, "seeds": self.seeds}, indent=1)[:-2]
        write_atomically(self.file, f'{head},\n "runs": [\n{lines}\n]}}\n')


def of(run: Run) -> Cell:
    """The cell of a result."""
    return Cell(run["mode"], run["regime"], run["seed"])


def _plain(value: Any) -> Any:
    """As JSON reads it back, with so many digits as mean something."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
