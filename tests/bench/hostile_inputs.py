"""Hostile completions: fuzzed LaTeX, towers, factorials, nesting, megabytes, control characters, code."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from scorer.sandbox import Item

_GOLDS = (
    "42", r"\frac{1}{2}", "0.333", "[0,1)", "x=1", "(1, 2)", r"\{1, 2, 3\}", "5 cm", "yes", "x^2+1", "1:2",
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"x \le 3",
)  # fmt: skip
_SPACED = (
    r"\frac { } ( ) [ ] \{ \} ^ _ \sqrt \pm , ; : = < > \le \in \cup \text{ \begin{pmatrix} \end{pmatrix} & \\ \boxed{ "
    r"\left \right . ! ? % \% $ | x y n e pi \pi \infty 1 2 0 9 10 99 0.5 1e9 and or not cm km ^\circ \sum \int \log"
)
_TOKENS = _SPACED.split()
_HONEST = (
    r"\frac{2a}{2b} + \sqrt[3]{27}", r"x \in (-\infty, 2] \cup [3, \infty)", "12{,}345.678",
    r"3.5 \times 10^{-4} \text{ m/s}",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"a < b \le c", r"\left\{ n\pi \mid n \in \mathbb{Z} \right\}",
    r"y = mx + b", "5:30 p.m.", r"\sum_{k=1}^{n} k^2", r"\frac{dy}{dx} = 2x", r"(1, -2), (3, 4)", "the 3rd one, 50%",
)  # fmt: skip
_HANGS = (
    r"A^{B^{C^{9}}}", r"2^{A^{4^{B^{6}}}}", "C00000A!", r"((1A!)!)!", r"\binom{10^{9}}{A \cdot 10^{8}}",
    r"10^{10^{10^{B}}}", r"(10^{9})!! + A", r"\sum_{n=1}^{10^{12}} \frac{A}{n^{2}}", r"(x+A)^{100000} - (x+B)^{99999}",
    r"\prod_{k=A}^{10^{9}} k", r"\prod_{k=1}^{10^{7}} (x+C)", r"(x+y+Az)^{300}", r"\pi^{\pi^{\pi^{\pi^{A}}}}",
    r"\sin(A0^{10^{10}})", r"\lfloor A^{9^{9}} \rfloor", r"\gcd(C^{9^9}, A)", r"C^{99999999} - A^{99999998}",
    r"7^{A^{7^7}} cm", r"x = 9^{9^{A^9}}", r"\sqrt{A}^{10^{10}}", r"\log_{10} (B^{C^{9}})",
    r"x^{C00000A!}", r"(x+1)^{A^{9^{9}}}", r"x^{2^{A^{6^{B}}}}", r"y^{\binom{10^{9}}{A \cdot 10^{8}}}",
    r"x < A^{B^{C^9}}",
)  # fmt: skip
_NESTED = (
    ("(", ")"), ("{", "}"), (r"\{", r"\}"), ("[", "]"), (r"\left(", r"\right)"), (r"\frac{1}{", "}"), (r"\sqrt{", "}"),
    ("x^{", "}"), ("x_{", "}"), (r"\text{", "}"), (r"\begin{pmatrix}", r"\end{pmatrix}"), ("|", "|"), ("-", ""),
    (r"\pm ", ""), ("1,", ""), ("1+", ""), ("x=", ""), ("!", ""), (r"\sin ", ""), ("1/", ""), (r"\cup [0,1]", ""),
)  # fmt: skip
_CODE = (
    '__import__("os").kill(__import__("os").getppid(), 9)', 'open("/dev/stdout","w").write("\\n"*99)',
    "exec('while 1: 0')",
    '", null, 0.0, ""]\n["correct", null, 0.0, ""]', '"}]]\n[["42", "42", "exact", {}]]', "{{7*7}}${7*7}`id`$(id)",
    "lambda: (yield)", "Symbol('x').__class__.__mro__[-1].__subclasses__()", "%s%n" * 50, "\\input{/etc/passwd}",
)  # fmt: skip


def inputs(count: int, seed: int = 0) -> Iterator[tuple[str, Item]]:
    """(kind, numbered completion with a gold answer), most of them in a box; one in forty-five is made to hang."""
    dice = random.Random(seed)
    makers = list(_MAKERS.items())
    weights = [weight for _, (weight, _) in makers]
    for number in range(count):
        [(kind, (_, make))] = dice.choices(makers, weights)
        text = make(dice)
        text = rf"\boxed{{{text}}} {number}" if dice.random() < 0.9 else f"{text} + {number}"
        yield kind, Item(dice.choice(_GOLDS), text)


def _hang(dice: random.Random) -> str:
    text = dice.choice(_HANGS)
    for letter in "ABC":
        text = text.replace(letter, str(dice.randrange(5, 10)))
    return text


def _nested(dice: random.Random) -> str:
    left, right = dice.choice(_NESTED)
    depth = dice.choice((30, 300, 3900 // len(left + right)))
    return left * depth + "1" + right * (depth if dice.random() < 0.7 else 0)


def _mutated(dice: random.Random) -> str:
    """An honest answer with a few slips."""
    text = dice.choice(_HONEST)
    for _ in range(dice.randrange(1, 6)):
        start = dice.randrange(len(text) + 1)
        end = min(len(text), start + dice.randrange(1, 6))
        middle = dice.choice(("", text[start:end] * 2, text[start:end][::-1], dice.choice(_TOKENS)))
        text = text[:start] + middle + text[end:]
    return text


def _digits(dice: random.Random) -> str:
    digits = "".join(dice.choices("0123456789", k=dice.choice((20, 400, 3900))))
    return dice.choice(
        (digits, "-" + digits, "0." + digits, digits + "%", "1e" + digits[:9], "1e-" + digits[:9], digits + "/7",
         rf"0.\overline{{{digits}}}", digits + " cm", rf"\frac{{{digits[:1900]}}}{{{digits[1900:] or 3}}}")
    )  # fmt: skip


def _characters(dice: random.Random) -> str:
    """Control characters, both directions of writing, lone surrogates, all planes."""
    top = dice.choice((0x20, 0x3000, 0x110000))
    return "".join(chr(dice.randrange(top)) for _ in range(dice.randrange(1, 300)))


def _megabyte(dice: random.Random) -> str:
    unit = dice.choice(("9", "(", "{", "}", "$", r"\boxed{", r"\boxed{1}", "\\", " ", "\x00", "1+", "x", chr(0x10FFFF)))
    return unit * (2**20 // len(unit))


_MAKERS: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "tokens": (631, lambda dice: " ".join(dice.choices(_TOKENS, k=dice.randrange(1, 40)))),
    "mutated": (120, _mutated),
    "characters": (196, _characters),
    "nested": (12, _nested),
    "digits": (7, _digits),
    "hangs": (22, _hang),
    "code": (10, lambda dice: dice.choice(_CODE)),
    "megabytes": (2, _megabyte),
}
"""In a thousand, and how one is made."""
