"""How far every stage is: what waits, who works on it, and what can be forgotten of both.

{run}:lost     hash "stage group" -> entries that were trimmed before this group, which owns nothing, read them
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.dead_letters import DeadLetters
from common.lanes import GROUPS, Lane, Stage, lane_of
from common.untrusted import count


class Backlog(DeadLetters):
    """What the streams of a run hold, without taking any of it."""

    def backlog(self) -> dict[Stage, dict[str, int | None]]:
        """Per stage: length of the stream, lag (not delivered; None if the server cannot tell), pending."""
        result: dict[Stage, dict[str, int | None]] = {}
        for stage, group in GROUPS.items():
            infos = self._do("xinfo_groups", self.key(stage))
            length = self._do("xlen", self.key(stage))
            result[stage] = {"length": length, "lag": None, "pending": 0}
            for info in infos:
                if info["name"] == group.encode():
                    result[stage] |= {"lag": info.get("lag"), "pending": info["pending"]}
        return result

    def oldest(self) -> dict[Stage, float | None]:
        """Per stage: seconds since the oldest entry came that nobody has acknowledged; None where there is none."""
        ages = self._script("oldest", list(GROUPS), list(GROUPS.values()))
        return {stage: age / 1000 if age >= 0 else None for stage, age in zip(GROUPS, ages, strict=True)}

    def shadows(self) -> list[dict[str, Any]]:
        """Groups beside the owning ones: {"stage", "name", "lag", "pending", "lost": trimmed before they read it}."""
        lost = self._do("hgetall", self.key("lost"))
        return [
            {
                "stage": stage,
                "name": info["name"].decode(errors="replace"),
                "lag": lag_of(info, self._do("xinfo_stream", self.key(stage))),
                "pending": info["pending"],
                "lost": count(lost.get(f"{stage} ".encode() + info["name"])),
            }
            for stage, group in GROUPS.items()
            for info in self._do("xinfo_groups", self.key(stage))
            if info["name"] != group.encode()
        ]

    def idle(self, held: int, lane: Lane = "train") -> bool:
        """Whether no stream of a lane has anything left for anybody, beside `held` scored groups of the learner's.

        The stages are asked in the order of the walk, so that a ticket that moves on meanwhile is not missed.
        """
        stages = {stage: state for stage, state in self.backlog().items() if lane_of(stage) == lane}
        pending = [state["pending"] or 0 for state in stages.values()]
        empty = all(state["lag"] == 0 or not state["length"] for state in stages.values())
        return empty and not any(pending[:-1]) and pending[-1] <= held

    def consumers(self) -> list[dict[str, Any]]:
        """Every consumer: {"stage", "name", "pending", "idle_s" since it last asked, "oldest_s" of its leases}."""
        found = []
        for stage, group in GROUPS.items():
            for info in self._do("xinfo_consumers", self.key(stage), group):
                leases = info["pending"] and self._do(
                    "xpending_range", self.key(stage), group, "-", "+", 1000, consumername=info["name"]
                )
                idle = max((lease["time_since_delivered"] for lease in leases or ()), default=0)
                found.append(
                    {
                        "stage": stage,
                        "name": info["name"].decode(errors="replace"),
                        "pending": info["pending"],
                        "idle_s": info["idle"] / 1000,
                        "oldest_s": idle / 1000,
                    }
                )
        return found

    def used(self) -> float:
        """Share of its memory that the fullest server of the broker uses; 0 where there is no limit."""
        shares = [i["used_memory"] / i["maxmemory"] for i in self._servers() if i.get("maxmemory")]
        return max(shares, default=0.0)

    def forget(self, idle_s: float) -> None:
        """Deletes the consumers and heartbeats of processes that were not heard of for so long and hold nothing."""
        for stage, group in GROUPS.items():
            for info in self._do("xinfo_consumers", self.key(stage), group):
                if not info["pending"] and info["idle"] > 1000 * idle_s:
                    self._script("leave", [stage], [group, info["name"]])
        silent = [name for name, state in self.processes().items() if state["heard_s"] > idle_s]
        if silent:
            self._do("hdel", self.key("procs"), *silent)

    def trim(self) -> None:
        """Frees what every owning group has acknowledged, read by its shadows or not."""
        for stage, group in GROUPS.items():
            self._script("trim", [stage, "lost"], [group, stage])


def lag_of(group: Mapping[str, Any], stream: Mapping[str, Any]) -> int | None:
    """Entries that a shadow was not given, by XINFO; Redis 7.0 adds what was trimmed before, so never all of these."""
    if group["last-delivered-id"] == stream["last-generated-id"]:
        return 0
    return None if group.get("lag") is None else min(group["lag"], stream["length"])
