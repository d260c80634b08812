"""matplotlib's SVG made fit for a page whose policy allows no style but its own: attributes, small, with names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from markupsafe import Markup

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
INHERITED = {"stroke-linejoin": "round", "stroke-linecap": "butt", "fill": "currentColor"}
"""matplotlib says the first two by a style sheet; text has no colour of its own and takes the page's."""
DROPPED = {"font-family"}
"""The page's font instead."""

_DECLARATION = re.compile(r"([a-z-]+):\s*([^;]+)")
_DIGITS = re.compile(r"(\d\.\d\d)\d+")


def inline(text: str, prefix: str, ink: str, names: Mapping[str, str], title: str) -> Markup:
    """One <svg>: `ink` becomes the text's colour; elements whose id is in `names` get that as their <title>.

    text: matplotlib's own output. prefix: of the ids, which one page has once each.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(text)  # noqa: S314 - written by matplotlib a moment ago
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        _plain(element, prefix, ink)
        if name := names.get(element.get("id", "").removeprefix(prefix)):
            element.insert(0, _element("title", name))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {**INHERITED, "role": "img", "aria-label": title}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - serialized, so escaped


def _plain(element: ElementTree.Element, prefix: str, ink: str) -> None:
    for name, value in _DECLARATION.findall(element.attrib.pop("style", "")):
        if name == "font":  # the short form of older versions
            size = re.search(r"[\d.]+px", value)
            element.set("font-size", size[0] if size else "8px")
        elif name not in DROPPED:
            element.set(name, "currentColor" if value.strip() == ink else value.strip())
    for name, value in element.attrib.items():
        if name == "id":
            element.set(name, prefix + value)
        elif name == f"{{{XLINK}}}href":
            element.set(name, f"#{prefix}{value[1:]}")
        elif name == "clip-path":
            element.set(name, value.replace("#", f"#{prefix}"))
        elif name in ("d", "x", "y", "transform"):
            element.set(name, _DIGITS.sub(r"\1", " ".join(value.split())))


def _element(tag: str, text: str) -> ElementTree.Element:
    made = ElementTree.Element(f"{{{SVG}}}{tag}")
    made.text = text
    return made
