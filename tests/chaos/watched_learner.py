"""`hero learner` that trims only what the `Observer` of a proof has read, however long that is kept from its turn."""

from __future__ import annotations

import sys
from importlib import resources
from typing import Any

from common.connection import Connection
from deploy import cli

PLACE = "\ntable.sort(shadows"
GUARD = """
local seen = redis.call('HGET', string.gsub(KEYS[2], 'lost$', 'seen'), ARGV[2])
if seen and before(seen, keep_from) then keep_from = seen end"""
_begin = Connection.__init__


def begin(self: Connection, *given: Any, **named: Any) -> None:
    _begin(self, *given, **named)
    script = (resources.files("common") / "lua" / "trim.lua").read_text()
    assert script.count(PLACE) == 1
    self._scripts["trim"] = self._redis.register_script(script.replace(PLACE, GUARD + PLACE))


if __name__ == "__main__":
    Connection.__init__ = begin  # type: ignore[method-assign]
    raise SystemExit(cli.main(sys.argv[1:]))
