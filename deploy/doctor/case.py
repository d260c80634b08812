"""What is examined: settings, for which roles of a run, and where its broker and its folder are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from common.errors import RunFolderError
from common.examiner import Examiner
from common.server import configured_url
from common.settings import Sections
from deploy.run_folder import id_in

ROLES = ("learner", "actor", "scorer")


@dataclass(frozen=True)
class Case:
    settings: Sections
    roles: frozenset[str]
    """Which of ROLES shall work on this machine; all of them for `hero up`."""
    configured: bool = True
    """Whether a file of settings was given."""

    @property
    def everything(self) -> bool:
        """Whether it is `hero up` that shall work."""
        return self.roles == frozenset(ROLES)

    @property
    def url(self) -> str | None:
        """The broker's; None where `hero up` starts one."""
        return configured_url(self.settings.broker.url)

    @cached_property
    def run_id(self) -> str:
        """The run's; of one that has not begun a possible one."""
        try:
            return self.settings.run.id or id_in(self.settings.run.folder)
        except (RunFolderError, OSError, ValueError, KeyError, TypeError):
            return f"{self.settings.run.name}-000000"

    def examiner(self, url: str) -> Examiner:
        """Raises BrokerUnavailable for what is no address."""
        return Examiner(url, self.run_id, "doctor")
