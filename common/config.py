"""Reads the settings: TOML file, then `HERO_SECTION__KEY`, then `--section.key value`; the later wins.

A `.json` file holds settings that `hero up` has resolved already, so the environment is not asked again.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    InitSettingsSource,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from common.errors import ConfigError
from common.settings import Sections, contradictions

_ADDRESSES = ("url", "endpoint")


class Settings(Sections, BaseSettings):
    """The resolved settings of one process; build it with `load`."""

    model_config = SettingsConfigDict(
        env_prefix="HERO_", env_nested_delimiter="__", extra="forbid", use_attribute_docstrings=True
    )


def load(file: Path | None, flags: Sequence[str] = (), given: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file, the environment and command line `flags`; `given` is what all of these leave open.

    Raises ConfigError naming every unknown key and impossible value, each with its remedy.
    """
    resolved = file is not None and file.suffix == ".json"
    if file is not None:
        if not file.is_file():
            raise ConfigError(f"there is no config file {file}; deploy/configs/ has examples")
        try:
            json.loads(file.read_text()) if resolved else tomllib.loads(file.read_text())
        except ValueError as error:  # of both parsers, and of bytes that are no text
            raise ConfigError(f"{file} is not {'JSON' if resolved else 'TOML'}: {error}") from error

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            cli = CliSettingsSource[Any](settings_cls, cli_parse_args=list(flags), cli_exit_on_error=False)
            if resolved:
                return (cli, JsonConfigSettingsSource(settings_cls, json_file=file))
            below = InitSettingsSource(settings_cls, init_kwargs=dict(given or {}))
            return (cli, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file), below)

    for name in [] if resolved else os.environ:
        section = name.upper().removeprefix("HERO_").partition("__")[0].lower()
        if name.upper().startswith("HERO_") and section not in Sections.model_fields:
            raise ConfigError(f"{name}: there is no section {section!r}; unset it, or see hero COMMAND --help")
    try:
        settings = Loaded()
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error))) from error
    except SettingsError as error:
        raise ConfigError(
            f"{error}; every setting is a flag --section.key value (hero COMMAND --help lists them)"
        ) from error
    problems = contradictions(settings)
    if problems:
        raise ConfigError("\n".join(f"{key} = {value}: {text}" for key, value, text in problems))
    return settings


def _explain(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        key = ".".join(place)
        if item["type"] == "extra_forbidden":
            known = _known_keys(place[:-1])
            near = difflib.get_close_matches(place[-1], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            yield f"{key}: there is no such setting; {hint}"
        else:
            message = item["msg"].removeprefix("Value error, ")
            value = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
            yield f"{key}{value}: {message}"


def _known_keys(section: Sequence[str]) -> list[str]:
    model: Any = Sections
    for part in section:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)


def describe(sections: Sequence[str]) -> str:
    """The settings of some sections with defaults and help texts, for --help."""
    lines: list[str] = []
    for name in sections:
        model: Any = Sections.model_fields[name].annotation
        lines.append(f"\n[{name}]  {' '.join((model.__doc__ or '').split())}")
        for key, field in model.model_fields.items():
            text = " ".join((field.description or "").split())
            default = field.default if not isinstance(field.default, Path) else str(field.default)
            lines.append(f"  --{name}.{key:<24} {default!s:<14} {text}".rstrip())
    return "\n".join(lines)


def dump(settings: Sections) -> str:
    """The resolved settings as JSON, for the run folder: without the broker's address, which may hold a password."""
    return settings.model_dump_json(indent=2, exclude={"broker": {"url"}})


def public(settings: Sections) -> dict[str, dict[str, Any]]:
    """The settings by section and key, for whoever is shown a run: without any address, which may hold a password."""
    sections = settings.model_dump(mode="json")
    return {
        name: {key: value for key, value in held.items() if key not in _ADDRESSES} for name, held in sections.items()
    }


def from_dump(text: str) -> Sections:
    """The settings that `dump` wrote."""
    return Sections.model_validate_json(text)


def fail(error: Exception) -> int:
    """Prints an error as the user should see it; returns the exit code."""
    print(f"hero: {error}", file=sys.stderr)
    return getattr(error, "exit_code", 1)
