"""Where the learner and the actors of a ring meet: the words that they leave for each other, the group that they form.

    here-MEMBER     has come            version-0, -1, ...  policies of this group, as the wire has them
    left-MEMBER     has given it up     broken              so has the learner

Nothing else in `common` needs torch, and only the two ends of a ring import this.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch.distributed import ProcessGroupGloo, TCPStore  # type: ignore[attr-defined]

from common.errors import SchemaError
from common.schema import Policy, pack, unpack

FORM_S = 20.0
"""Until all members are there."""
BUCKET_BYTES = 2**26
BROKEN = "broken"


class Meeting:
    """Every call raises RuntimeError, torch's for every way to fail, when the other side is away."""

    def __init__(self, host: str, port: int | None = None) -> None:
        """Opens one on a port of this host (the learner), or joins the one there (an actor)."""
        opens = port is None
        within = timedelta(seconds=FORM_S)
        self._store = TCPStore(host, port or 0, None, opens, within, wait_for_workers=False)
        self.address = f"{host}:{self._store.port}"

    def say(self, word: str, content: str = "1") -> None:
        self._store.set(word, content)

    def said(self, word: str) -> bool:
        return bool(self._store.check([word]))

    def send(self, number: int, policy: Policy) -> None:
        """Says that this policy is the next one through the group."""
        self.say(f"version-{number}", pack(policy).hex())

    def policy(self, number: int) -> Policy | None:
        """None while there is none of that number. Raises SchemaError for what is none."""
        if not self.said(f"version-{number}"):
            return None
        found = unpack(bytes.fromhex(self._store.get(f"version-{number}").decode()))
        if not isinstance(found, Policy):
            raise SchemaError(f"a {found.KIND} where a policy is expected")
        return found

    def form(self, rank: int, size: int, device: str) -> Group:
        """Blocks until all are there. The learner is rank 0; the group is apart from that of its ranks."""
        if device == "cpu":
            return Group(ProcessGroupGloo(self._store, rank, size, timedelta(seconds=FORM_S)))
        from torch.distributed import ProcessGroupNCCL

        return Group(ProcessGroupNCCL(self._store, rank, size, ProcessGroupNCCL.Options()))


class Group:
    """All who have come."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._options = torch._C._distributed_c10d.BroadcastOptions()
        self._options.rootRank = 0

    def broadcast(self, bucket: torch.Tensor, seconds: float) -> None:
        """The learner's bucket into everybody's; raises RuntimeError when that takes longer."""
        self._group.broadcast([bucket], self._options).wait(timedelta(seconds=seconds))
