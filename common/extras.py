"""Optional packages: asked for by a setting, so refused by its name where they are missing, before anything begins."""

from __future__ import annotations

from importlib.util import find_spec

from common.errors import ConfigError


def needs(setting: str, module: str, extra: str) -> None:
    """Raises ConfigError with the remedy where there is no such module."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # of a package that it is in
        found = None
    if found is None or found.origin is None:  # a folder of that name, as W&B makes one, is no package
        raise ConfigError(f"{setting} needs {module}, which is not installed: pip install 'hero-rl[{extra}]'")
