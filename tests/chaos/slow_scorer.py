"""`python -m tests.chaos.slow_scorer scorer ...`: `hero scorer` whose verification takes longer for each completion.

The file that SECONDS_EACH names in the environment says how much, and may change at any time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy import cli
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Verdict

SECONDS_EACH = "SECONDS_EACH"


class SlowSandbox(Sandbox):
    def verify(self, items: Sequence[Item]) -> list[Verdict]:
        found = super().verify(items)
        time.sleep(len(items) * float(Path(os.environ[SECONDS_EACH]).read_text()))
        return found


if __name__ == "__main__":
    import scorer.worker

    scorer.worker.Sandbox = SlowSandbox  # type: ignore[misc]
    raise SystemExit(cli.main(sys.argv[1:]))
