"""The folder of a shadow: its settings, its reward log, and what goes on when it is started again.

settings.json             the second configuration, whole
rewards/rewards.jsonl     every group under it, as the run's own log has them: for `hero compare` and `hero score`
shadow.json               whose it is, what it has counted, its sigma_bar and sigma_dev
compare.png               the last picture
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common import config
from common.errors import RunFolderError
from common.settings import Sections
from common.sigma import Sigma
from deploy.run_folder import write_atomically

DECIDES = ("verifier", "reward_model", "reward")


@dataclass
class State:
    """What a shadow has counted since it was new."""

    run: str
    name: str
    groups: int = 0
    """Scored and in the log."""
    malformed: int = 0
    not_scored: int = 0
    lost: int = 0
    """Trimmed before it was given them."""
    lost_at: int = 0
    """The server's own count when it was last asked: that goes on over all shadows that ever had the name."""
    sigma_bar: float | None = None
    sigma_dev: float = 0.0

    @property
    def sigma(self) -> Sigma | None:
        """Its own running one; None where there is none yet, or the recorded one is taken."""
        return None if self.sigma_bar is None else Sigma(self.sigma_bar, self.sigma_dev)

    @sigma.setter
    def sigma(self, sigma: Sigma | None) -> None:
        self.sigma_bar, self.sigma_dev = (None, 0.0) if sigma is None else (sigma.bar, sigma.dev)

    def count_lost(self, counted: int) -> None:
        """`counted` is the server's; one that lost its data begins again with 0."""
        self.lost += counted - self.lost_at if counted >= self.lost_at else counted
        self.lost_at = counted


def earlier(folder: Path, run: str, name: str, settings: Sections) -> State | None:
    """What this shadow left in its folder; None in a new one. RunFolderError rather than mix two in one folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / "shadow.json"
        if not marker.is_file():
            if any(folder.iterdir()):
                raise RunFolderError(f"{folder} holds files that are no shadow's; give a new or empty folder as --out")
            return None
        state = State(**json.loads(marker.read_text()))
        held = config.from_dump((folder / "settings.json").read_text())
    except (OSError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"the folder {folder} of a shadow cannot be used: {error}; give another as --out"
        ) from error
    if (state.run, state.name) != (run, name):
        raise RunFolderError(f"{folder} holds shadow {state.name} of run {state.run}; give another folder as --out")
    old, new = ({name: getattr(of, name).model_dump() for name in DECIDES} for of in (held, settings))
    changed = [
        f"{section}.{key}" for section in DECIDES for key in old[section] if old[section][key] != new[section][key]
    ]
    if held.learner.advantage != settings.learner.advantage:
        changed.append("learner.advantage")
    if changed:
        raise RunFolderError(
            f"{folder} holds shadow {name} under other settings ({', '.join(changed[:5])}); give another --name"
        )
    return state


def keep(folder: Path, state: State, settings: Sections | None = None) -> None:
    """Writes the state down, whole or not at all; the settings too where they are given."""
    try:
        if settings is not None:
            write_atomically(folder / "settings.json", config.dump(settings))
        write_atomically(folder / "shadow.json", json.dumps(asdict(state), indent=1))
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written: {error}; make room, or give another as --out") from error
