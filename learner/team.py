"""The policy on all ranks, as rank 0 sees it: what is called here, every rank does with its share."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from common.errors import CheckpointError, DiskFull, RankLost
from learner import reshard
from learner.batch import Sequence
from learner.links import Message
from learner.policy import Policy, StepResult
from learner.policy_state import lacking
from learner.ranks import Ranks
from learner.shares import Share, share_out

ANSWER_S = 1800.0  # after rank 0 has done its own part, as long as for a collective


class Team:
    """`Policy` for the one process that talks to the broker. On one rank it is nothing but that policy."""

    def __init__(self, policy: Policy, ranks: Ranks) -> None:
        """On rank 0, while the others are in `follow`."""
        self._policy = policy
        self._ranks = ranks

    @property
    def applied_steps(self) -> int:
        return self._policy.applied_steps

    @property
    def vocabulary(self) -> int:
        return self._policy.vocabulary

    @property
    def config(self) -> Any:
        return self._policy.config

    @property
    def device_name(self) -> str:
        return self._policy.device_name

    def step(self, sequences: SequenceOf[Sequence], temperature: float) -> StepResult:
        """As `Policy.step`, of a whole batch. Its figures are of all ranks, its seconds and micro-batches of rank 0."""
        parts = [
            {"sequences": given, "cuts": share.cuts, "temperature": temperature}
            for share, given in self._shared(sequences, self._policy.options.mini_steps)
        ]
        result: StepResult = self._together("step", parts)[0]
        return result

    def logprobs(self, sequences: SequenceOf[Sequence], temperature: float) -> list[npt.NDArray[np.float32]]:
        """As `Policy.logprobs`."""
        shared = self._shared(sequences, 1)
        parts = [{"sequences": given, "temperature": temperature} for _, given in shared]
        found: dict[int, npt.NDArray[np.float32]] = {}
        for (share, _), values in zip(shared, self._together("logprobs", parts), strict=True):
            found |= dict(zip(share.places, values, strict=True))
        return [found[place] for place in range(len(sequences))]

    @property
    def adapter_scale(self) -> float | None:
        """What adapters count for, alpha / rank; None where all weights are trained."""
        options = self._policy.options
        return options.lora_alpha / options.lora_rank if options.lora_rank else None

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """As `Policy.named_weights`."""
        return self._walk("named_weights")

    def frozen_weights(self) -> Iterator[tuple[str, Tensor]]:
        """As `Policy.frozen_weights`."""
        return self._walk("frozen_weights")

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """As `Policy.adapter_weights`."""
        return self._walk("adapter_weights")

    def _walk(self, which: str) -> Iterator[tuple[str, Tensor]]:
        """The others walk along where ZeRO-3 needs them to."""
        walk: Iterator[tuple[str, Tensor]] = getattr(self._policy, which)()
        if self._policy.options.zero_stage < 3:
            yield from walk
            return
        self._send("walk", [{"which": which}] * self._ranks.count)
        try:
            for item in walk:  # noqa: UP028 - `yield from` would end it with us
                yield item
        finally:
            for _ in walk:  # to the end, or the others would wait in the middle of it
                pass
            self._answers()

    def save(self, folder: Path) -> None:
        """As `Policy.save`. DiskFull when any rank has no room."""
        self._together("save", [{"folder": str(folder)}] * self._ranks.count)
        if missing := lacking(folder, self._ranks.count):
            raise CheckpointError(
                f"ranks {missing} wrote their part of {folder} to another disk than rank 0's: mount one and the same "
                "run.folder on all their hosts"
            )

    def load(self, folder: Path) -> None:
        """As `Policy.load`, also of what another number of ranks has saved."""
        with reshard.universal(folder, self._ranks.count) as universal:
            part = {"folder": str(folder), "universal": universal and str(universal)}
            self._together("load", [part] * self._ranks.count)

    def export(self, folder: Path) -> Path:
        """As `Policy.export`."""
        self._together("export", [{"folder": str(folder)}] * self._ranks.count)
        return folder

    def _shared(self, sequences: SequenceOf[Sequence], mini_steps: int) -> list[tuple[Share, list[Sequence]]]:
        shares = share_out(sequences, mini_steps, self._ranks.count, packed=self._policy.packs)
        return [(share, [sequences[place] for place in share.places]) for share in shares]

    def _together(self, order: str, parts: SequenceOf[Message]) -> list[Any]:
        """What every rank makes of its part, by rank. Raises DiskFull when all are through and any had no room."""
        self._send(order, parts)
        try:
            own = _ORDERS[order](self._policy, parts[0])
        except DiskFull:
            self._answers()
            raise
        return [own, *self._answers()]

    def _send(self, order: str, parts: SequenceOf[Message]) -> None:
        for rank, link in self._ranks.links.items():
            try:
                link.send({"order": order, "part": _packed(parts[rank])})
            except OSError as error:  # which who saves would take for one of the disk
                raise RuntimeError(f"rank {rank} of the learner cannot be reached: {error}") from error

    def _answers(self) -> list[Any]:
        found = [self._answer(rank) for rank in self._ranks.links]
        for answer in found:
            if "full" in answer:
                raise DiskFull(answer["full"])
        return [answer["answer"] for answer in found]

    def _answer(self, rank: int) -> Message:
        try:
            return self._ranks.links[rank].receive(ANSWER_S)
        except queue.Empty:
            raise RankLost(f"rank {rank} of the learner has not answered for {ANSWER_S:.0f} s; see its log") from None


def follow(policy: Policy, ranks: Ranks) -> None:
    """On every rank but 0: does its part of what rank 0 calls until that has ended. A full disk is an answer."""
    while (message := ranks.order())["order"] != "end":
        try:
            found = _ORDERS[message["order"]](policy, _unpacked(message["part"]))
        except DiskFull as error:
            ranks.links[0].send({"full": str(error)})
        else:
            ranks.links[0].send({"answer": found if message["order"] == "logprobs" else None})


def _step(policy: Policy, part: Message) -> StepResult:
    return policy.step(part["sequences"], part["temperature"], part["cuts"])


def _logprobs(policy: Policy, part: Message) -> list[npt.NDArray[np.float32]]:
    return policy.logprobs(part["sequences"], part["temperature"])


def _walk(policy: Policy, part: Message) -> None:
    for _ in getattr(policy, part["which"])():
        pass


def _save(policy: Policy, part: Message) -> None:
    policy.save(Path(part["folder"]))


def _load(policy: Policy, part: Message) -> None:
    policy.load(Path(part["folder"]), part["universal"] and Path(part["universal"]))


def _export(policy: Policy, part: Message) -> None:
    policy.export(Path(part["folder"]))


_ORDERS: dict[str, Callable[[Policy, Message], Any]] = {
    "step": _step,
    "logprobs": _logprobs,
    "walk": _walk,
    "save": _save,
    "load": _load,
    "export": _export,
}


def _packed(part: Message) -> Message:
    return part | {"sequences": [vars(sequence) for sequence in part["sequences"]]} if "sequences" in part else part


def _unpacked(part: Message) -> Message:
    return part | {"sequences": [Sequence(**given) for given in part["sequences"]]} if "sequences" in part else part
