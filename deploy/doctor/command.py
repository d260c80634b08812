"""`hero doctor`: findings as a table that grows while the checks end, or as JSON, and an exit code for scripts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from common import config, logs
from common.errors import ConfigError
from deploy.doctor.case import ROLES, Case
from deploy.doctor.checks import CHECKS, examine
from deploy.doctor.finding import Finding, as_json, error, exit_code
from deploy.doctor.table import WIDTH, closing, row


def run(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Returns the exit code."""
    names = arguments.only.split(",") if arguments.only else list(CHECKS)
    if unknown := [name for name in names if name not in CHECKS]:
        raise ConfigError(f"--only {unknown[0]}: there is no such check; there are {', '.join(CHECKS)}")
    logs.start("doctor", "ERROR")  # not across the table
    out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        case = _case(arguments.config, flags, arguments.role)
    except ConfigError as problem:
        if not arguments.json:
            raise
        refused = [error("settings", line, "hero doctor --help lists them") for line in str(problem).splitlines()]
        print(json.dumps(as_json(refused, problem.exit_code)))
        return problem.exit_code
    findings: list[Finding] = []
    for finding in examine(case, names):
        findings.append(finding)
        if not arguments.json:
            out.print(row(finding))
    code = exit_code(findings, strict=arguments.strict)
    if arguments.json:
        print(json.dumps(as_json(findings, code)))
    else:
        out.print(closing(findings))
    return code


def _case(file: Path | None, flags: Sequence[str], role: str) -> Case:
    """Raises ConfigError."""
    settings = config.load(file, flags)
    return Case(settings, frozenset(ROLES if role == "all" else (role,)), configured=file is not None)
