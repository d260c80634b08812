"""A page in one file: a template with every value escaped, under a policy that lets nothing in and nothing out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent


def document(template: Path, scripts: Sequence[Path] = (), **values: object) -> str:
    """The page of a template that extends `document.html.jinja` and may import `parts.html.jinja`.

    The browser runs the scripts and takes the style of this folder, known by their hashes, shows pictures that are in
    the page itself, and loads, sends and runs nothing else: whatever a value holds, it is text.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader([template.parent, HERE]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _own(HERE / "document.css")
    code = Markup("\n").join(map(_own, scripts))
    allowed = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(code) if scripts else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{what} {whence}" for what, whence in allowed.items())
    page = environment.get_template(template.name)
    return page.render(style=style, script=code, policy=policy, **values)


def _own(file: Path) -> Markup:
    return Markup(file.read_text(encoding="utf-8"))  # noqa: S704 - a file of ours, as it is


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
