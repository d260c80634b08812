"""`python -m tests.integration.older ARGUMENT...`: `hero` of a release that knows no later wire than the one before."""

from __future__ import annotations

import sys

from common import schema
from deploy import cli

schema.WIRE_VERSION = schema.OLDEST_WIRE

if __name__ == "__main__":
    raise SystemExit(cli.main(sys.argv[1:]))
