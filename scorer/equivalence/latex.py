"""One spelling for what is written in many ways: Unicode, HTML, LaTeX's synonyms, sizes and spaces.

Nothing is read here and nothing is judged; every replacement is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from scorer.equivalence.brackets import braced, closing

_UNICODE = {
    "≥": r" \ge ", "⩾": r" \ge ", "≤": r" \le ", "⩽": r" \le ", "≠": r" \ne ", "≈": r" \approx ", "±": r" \pm ",
    "∓": r" \mp ", "×": r" \times ", "÷": r" \div ", "·": r" \cdot ", "⋅": r" \cdot ", "∙": r" \cdot ", "−": "-",
    "–": "-", "—": "-", "‐": "-", "π": r"\pi ", "∞": r"\infty ", "∪": r" \cup ", "∩": r" \cap ", "∈": r" \in ",
    "∅": r" \emptyset ", "°": r"^{\circ}", "√": r"\sqrt", "∀": r"\forall ", "∃": r"\exists ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "Δ": r"\Delta ", "∠": r"\angle ", "€": r"\euro ",
    "£": r"\pound ", "¥": r"\yen ", "⁄": "/", "“": '"', "”": '"', "‘": "'", "’": "'", "′": "'", "…": r"\ldots ",
    "∖": r" \setminus ", "→": r"\to ", "⇒": r"\Rightarrow ", "✓": "yes",
}  # fmt: skip
_CIRCLED = {chr(0x2460 + n): f", {n + 1}, " for n in range(20)}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_SYNONYMS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge",
    "geqslant": "ge", "geqq": "ge", "neq": "ne", "to": "rightarrow", "lbrace": "{", "rbrace": "}", "land": "wedge",
    "iff": "Leftrightarrow", "varnothing": "emptyset", "mbox": "text", "textbf": "text", "textnormal": "text",
    "textrm": "text", "textit": "text", "mathrm": "text", "operatorname": "text", "hbox": "text", "textsf": "text",
    "mathbf": "text", "bm": "text", "boldsymbol": "text", "mathit": "text", "varphi": "phi", "varepsilon": "epsilon",
    "ast": "cdot", "bmatrix": "pmatrix", "backslash": "setminus", "dots": "ldots", "cdots": "ldots", "lor": "vee",
    "cosec": "csc", "tg": "tan", "ctg": "cot", "arctg": "arctan", "textdegree": "degree", "cupdot": "sqcup",
}  # fmt: skip
_SYNONYM = re.compile(r"\\(" + "|".join(sorted(_SYNONYMS, key=len, reverse=True)) + r")(?![a-zA-Z])")
_NO_MEANING = re.compile(
    r"\\(?:left|right|bigg?[lrm]?|Bigg?[lrm]?|displaystyle|textstyle|limits|nolimits|hfill|quad|qquad|enspace|hspace"
    r"\s*\{[^{}]*\}|phantom\s*\{[^{}]*\}|thinspace|allowbreak|rm|bf|it)(?![a-zA-Z])\.?|\\[;:> ]|\\(?=\d)|~|&nbsp;"
)
_THIN = re.compile(r"\\[,!]")
_DIGITS_APART = re.compile(r"(?<=\d) ?(?:,\s*)?\\[,!]\s*(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3}(?!\d))")
_LINES = re.compile(r"(?<=[^\s$\\])\$[.,;]?\s*\n\s*\$(?=[^\s$])")
_BOLD = re.compile(r"(?<![\w*)}\]])\*\*([^*\n]+)\*\*(?![\w*])")
_PYTHON_POWER = re.compile(r"(?<=[\w)}])\s*\*\*\s*(?=[\w({\\-])")
_BARE_NAMES = re.compile(
    r"(?<![\\a-zA-Z])(sqrt|pi|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln|infty)(?![a-zA-Z])"
)
_ROOT_OR_POWER = re.compile(r"\\sqrt\s*(?=\()|\^\s*(?=\()")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z]{2,})")
_HTML = (
    (re.compile(r"<sup>(.*?)</sup>", re.S | re.I), r"^{\1}"),
    (re.compile(r"<sub>(.*?)</sub>", re.S | re.I), r"_{\1}"),
)
_DELIMITERS = re.compile(r"\\[()\[\]]|\$\$?")
_MONEY = re.compile(r"\\?\$\s*(?=[\d.])|(?<=\d)\s*\\\$")
_DEGREE = re.compile(
    r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|(?<=\d)\s*\\?\s*degrees?(?![a-z])"
)
_BROKEN_DEGREE = re.compile(r"(?<=\d)\^\s*$")
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_BARE_COMMANDS = re.compile(
    r"\\text\s*\{\s*(sin|cos|tan|cot|sec|csc|log|ln|arcsin|arccos|arctan|lim|max|min|exp|gcd|lcm)\s*\}"
)
_INVERSE = re.compile(r"\\(sin|cos|tan|cot|sec|csc)\s*\^\s*\{\s*-\s*1\s*\}")
_ROW = re.compile(r"\\\\(?:\s*\[[^\]]{0,8}\])?")
_ORDINAL = re.compile(
    r"(?<=\d)(?:\s*\^\s*\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\s*\}?\s*\}?|(?:st|nd|rd|th)(?![a-z]))"
)
_NAMED_INDEX = re.compile(r"_\s*\{\s*\\text\s*\{\s*([a-zA-Z0-9]+)\s*\}\s*\}")
_BARE_FRACTION = re.compile(r"\\frac\s*(\d)\s*(?:(\d)|(?=\{))")
_HALF_BRACED = re.compile(r"\\frac\s*(\{[^{}]*\})\s*([a-zA-Z0-9])")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{\s*(?:[bBvV]?matrix|smallmatrix|array)\s*\}(?:\s*\{[clr|\s]+\})?")
_MATRIX_IN_BRACKETS = re.compile(r"[\[(]\s*(\\begin\{pmatrix\}(?:(?!\\begin).)*\\end\{pmatrix\})\s*[\])]", re.S)
_BLANKS = re.compile(r"\s+")
_PERCENT = re.compile(r"(?:\\text\s*\{\s*)?(?<![a-zA-Z])(?:percent(?:age)?|pct)(?![a-zA-Z])\s*\}?|(?<!\\)%")
_PLAIN_SET = re.compile(r"^\{([^{}]*)\}$")


@lru_cache(maxsize=512)
def one_spelling(text: str) -> str:
    """`one_spelling("$\\\\dfrac{1}{2}\\\\,$")` is `\\\\frac{1}{2}`. Boxes and $ are taken off."""
    for pattern, becomes in _HTML:
        text = pattern.sub(becomes, text)
    for char, becomes in _CIRCLED.items():
        text = text.replace(char, becomes)
    text = re.sub("[⁰¹²³⁴-⁹⁺⁻ⁿ]+", lambda m: "^{" + m[0].translate(_RAISED) + "}", text)
    text = re.sub("[₀-₉]+", lambda m: "_{" + m[0].translate(_LOWERED) + "}", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda m: _fraction(m[0]), text)
    for char, becomes in _UNICODE.items():
        text = text.replace(char, becomes)
    text = unicodedata.normalize("NFKC", text)
    if r"\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _LINES.sub("$, $", _BOLD.sub(r"\1", text))
    text = _MONEY.sub(r"\\dollar ", text) if _is_money(text) else text
    text = _DELIMITERS.sub(" ", text) if "$" in text or _wrapped(text) else text
    text = _without_box(text)
    text = _DIGITS_APART.sub("", text)
    text = _ROW.sub(r" \\cr " if r"\begin" in text else " ", text)
    text = _SYNONYM.sub(lambda m: "\\" + _SYNONYMS[m[1]], text)
    text = _THIN.sub(" ", _NO_MEANING.sub(" ", text))
    text = _ORDINAL.sub("", text)
    text = _NAMED_INDEX.sub(r"_{\1}", text)
    text = _BARE_FRACTION.sub(lambda m: rf"\frac{{{m[1]}}}" + (f"{{{m[2]}}}" if m[2] else ""), text)
    text = _HALF_BRACED.sub(r"\\frac\1{\2}", text)
    text = _ENVIRONMENT.sub(r"\\\1{pmatrix}", text)
    text = _MATRIX_IN_BRACKETS.sub(r"\1", text)
    text = _BARE_COMMANDS.sub(r"\\\1 ", text)
    text = braced(_BARE_NAMES.sub(r"\\\1 ", _PYTHON_POWER.sub("^", text)), _ROOT_OR_POWER)
    text = _INVERSE.sub(r"\\arc\1 ", text)
    text = _DEGREE.sub(r"\\deg ", text)
    text = _BROKEN_DEGREE.sub(r"\\deg ", text)
    text = _PERCENT.sub(r"\\% ", text)
    text = _PLAIN_SET.sub(r"\1", _BLANKS.sub(" ", text).strip())
    while (text[-1:] in {".", ",", ";", "?"} or re.search(r"[a-z]{2}!$", text)) and not text.endswith(("\\,", "\\!")):
        text = text[:-1].rstrip()
    return text


def _fraction(char: str) -> str:
    top, bottom = unicodedata.normalize("NFKC", char).split("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


def _is_money(text: str) -> bool:
    """A dollar sign that pays, instead of one that opens mathematics."""
    return text.count("$") % 2 == 1 or "\\$" in text


def _wrapped(text: str) -> bool:
    return any(mark in text for mark in (r"\(", r"\[", r"\]", r"\)"))


def _without_box(text: str) -> str:
    """What is in a box, with what stands around it."""
    while True:
        at = re.search(r"\\(?:boxed|fbox)\s*\{", text)
        if at is None:
            return text
        end = closing(text, at.end() - 1)
        text = text[: at.start()] + text[at.end() : end] + text[end + 1 :]


@lru_cache(maxsize=512)
def canonical(text: str) -> str:
    """A text without blanks, needless braces and marks: equal ones are the same answer."""
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])\s*", "*", text)
    text = TEXT.sub(r"\1", text)
    text = re.sub(r"([_^])\s*\{\s*([a-zA-Z0-9])\s*\}", r"\1\2", text)
    return _BLANKS.sub("", text)
