"""What is only written otherwise is the same answer; what has another value, sign, bracket or unit is another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorer.equivalence.compare import equal

Shape = Callable[[int, int], tuple[str, list[str], list[str]]]
"""(a, b), 1 < a < b: a gold answer, the same ones, other ones."""


def whole(a: int, b: int) -> tuple[str, list[str], list[str]]:
    n = 1000 * a + b
    grouped = [f"{n:,}".replace(",", mark) for mark in (",", "{,}", r"\,", r",\!", r" , \! ")]
    units = [rf"{n}\text{{ cm}}", rf"{n} \ \mathrm{{cm}}", f"{n} units", rf"{n}\text{{ square inches}}", rf"\${n}"]
    other = [f"{n + 1}", f"-{n}", f"{n}7", f"{n}%", f"{n}x", f"{n}, {n + 1}", rf"{n}\pi", f"{n}.5", f"{b}e{a % 7}"]
    return str(n), [*grouped, *units, f"{n}.0", f"+{n}", f"**{n}**", rf"\text{{{n}}}", f"({n})"], other


def fraction(a: int, b: int) -> tuple[str, list[str], list[str]]:
    below = 2 * b + 1
    same = [f"-{a}/{below}", f"(-{a})/{below}", rf"\frac{{{-2 * a}}}{{{2 * below}}}", rf"−\tfrac {{{a}}} {{{below}}}"]
    other = [rf"\frac{{{a}}}{{{below}}}", rf"-\frac{{{a + 1}}}{{{below}}}", rf"-\frac{{{below}}}{{{a}}}"]
    return rf"-\dfrac{{{a}}}{{{below}}}", same, other


def mixed(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [rf"{a}\frac{{1}}{{4}}", f"{a} 1/4", rf"\frac{{{4 * a + 1}}}{{4}}", rf"{a}\frac14", f"{a}¼", f"{a}.250"]
    return f"{a}.25", same, [f"{a}.26", f"{a}.5", rf"{a}\frac{{3}}{{4}}", f"{b}.25", f"-{a}.25", f"{a}25"]


def root(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [f"{b}√({a})", f"√({a * b * b})", f"{b}sqrt({a})", rf"{b}\cdot\sqrt{{{a}}}", f"{b}*({a})^(1/2)"]
    other = [rf"{b}\sqrt{{{a + 1}}}", rf"{b + 1}\sqrt{{{a}}}", rf"-{b}\sqrt{{{a}}}", rf"{b}\sqrt[3]{{{a}}}", f"{b * a}"]
    return rf"{b}\sqrt{{{a}}}", same, other if a * (b + 1) ** 2 != (a + 1) * b**2 else []


def angle(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [f"{b}°", rf"{b}^{{\circ}}", f"{b} degrees", rf"{b}\text{{ degrees}}", str(b), rf"\frac{{{b}\pi}}{{180}}"]
    return rf"{b}^\circ", same, [f"{a}°", rf"{b}\pi", rf"\frac{{{a}\pi}}{{180}}", f"-{b}°", f"{b}%"]


def interval(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [
        rf"\left[{a}, {b}\right)",
        rf"{a} \leq x < {b}",
        f"x >= {a} and x < {b}",
        rf"x \in [{a},{b})",
        f"{b} > x ≥ {a}",
    ]
    same += [rf"\{{x \mid {a} \le x < {b}\}}", rf"\left\{{ t : {a} \leqslant t < {b} \right\}}"]
    other = [
        f"({a}, {b})",
        f"[{a}, {b}]",
        f"[{b}, {a})",
        f"[{a}, {b + 1})",
        rf"[{a}, \infty)",
        f"{a} < x < {b}",
        f"[-{a}, {b})",
    ]
    return f"[{a}, {b})", same, other


def union(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [rf"x < -{a} \text{{ or }} x > {b}", rf"\{{x | x > {b} or x < -{a}\}}", rf"x = ({b},∞)∪(-∞,-{a})"]
    other = [rf"x < -{a} \text{{ or }} x > {b + 1}", rf"(-{a}, {b})", rf"\{{x | x > {b} or x \le -{a}\}}", rf"x > {b}"]
    return rf"(-\infty, -{a}) \cup ({b}, +\infty)", same, other


def several(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [f"{b}, {a}", rf"\{{{b}, {a}\}}", rf"{b} \text{{ and }} {a}", f"{b} or {a}", f"x = {b}, x = {a}", f"{b};{a}"]
    same += [f"x_1 = {a}, x_2 = {b}", rf"x \in \{{{a}, {b}\}}", f"$x={a}$ or $x={b}$"]
    return f"{a}, {b}", same, [f"{a}", f"{a}, {b + 1}", f"{a}, {b}, {b + 1}", f"{a}, -{b}", f"{a}{b}"]


def signs(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [rf"{a} ± √({2 * b})", rf"{a} - \sqrt{{{2 * b}}}, {a} + \sqrt{{{2 * b}}}", rf"x = {a} \pm \sqrt{{{2 * b}}}"]
    other = [rf"{a} + \sqrt{{{2 * b}}}", rf"-{a} \pm \sqrt{{{2 * b}}}", rf"{b} \pm \sqrt{{{2 * b}}}"]
    return rf"{a} \pm \sqrt{{{2 * b}}}", same, other


def point(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [
        rf"\left({a},\ {b}\right)",
        f"({a};{b})",
        f"(x, y) = ({a}, {b})",
        f"x = {a}, y = {b}",
        rf"({2 * a}/2, {b}.0)",
    ]
    return (
        f"({a}, {b})",
        same,
        [f"({b}, {a})", f"[{a}, {b}]", rf"\{{{a}, {b}\}}", f"({a}, -{b})", f"({a}, {b}, {b})", f"{a}"],
    )


def matrix(a: int, b: int) -> tuple[str, list[str], list[str]]:
    gold = rf"\begin{{pmatrix}} {a} & -{b} \\ 0 & 1 \end{{pmatrix}}"
    same = [
        rf"\begin{{bmatrix}}{a}&-{b}\\0&1\end{{bmatrix}}",
        rf"\left[\begin{{array}}{{rr}}{a}&-{b}\\0&1\end{{array}}\right]",
    ]
    return gold, same, [gold.replace("-", ""), gold.replace("0 & 1", "1 & 0"), gold.replace(r"\\ 0 & 1", "")]


def formula(a: int, b: int) -> tuple[str, list[str], list[str]]:
    gold = rf"\frac{{{a}x^2 - {b}}}{{2}}"
    same = [rf"\frac{{{a}}}{{2}}x^{{2}} - \frac{{{b}}}{{2}}", f"({a}x^2-{b})/2", f"y = {gold}", f"0.5({a}*x**2 - {b})"]
    other = [gold.replace("x^2", "x^3"), gold.replace("-", "+"), gold.replace(str(b), str(b + 1)), f"{a}x^2-{b}"]
    return gold, same, [*other, gold.replace("x", "y")]


def equation(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [f"{a}x - y + {b} = 0", f"y - {b} = {a}x", f"{2 * a}x - 2y = -{2 * b}", f"{a}x+{b}"]
    return f"y = {a}x + {b}", same, [f"y = {a}x - {b}", f"y = {b}x + {a}", f"{a}y = x + {b}", f"{a}x - y + {b + 1} = 0"]


def length(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [f"{b} cm", f"{b}cm", rf"{b}\,\mathrm{{cm}}", f"{10 * b} mm", rf"\frac{{{b}}}{{100}} \text{{ m}}", f"{b}"]
    return rf"{b}\text{{ cm}}", same, [f"{b} mm", rf"{b}\text{{ m}}", f"{b}0 cm", f"{b} seconds", f"{a} cm"]


def tiny(a: int, b: int) -> tuple[str, list[str], list[str]]:
    same = [rf"{a}.0 \times 10^{{-{b}}}", rf"\frac{{{a}}}{{10^{{{b}}}}}", rf"{a} \cdot 10^{{-{b}}}"]
    return f"{a}e-{b}", same, [f"{a + 1}e-{b}", f"{a}e-{b + 1}", "0", f"-{a}e-{b}", f"{a}e{b}"]


SHAPES = [whole, fraction, mixed, root, angle, interval, union, several, signs, point, matrix]
SHAPES += [formula, equation, length, tiny]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@settings(max_examples=5)
@given(data=st.data())
def test_the_value_counts_and_not_how_it_is_written(shape: Shape, data: st.DataObject) -> None:
    a = data.draw(st.integers(2, 40))
    b = data.draw(st.integers(a + 1, 99))
    gold, same, other = shape(a, b)
    around = [
        gold,
        f"{gold}.",
        f"${gold}$",
        rf"\[{gold}\]",
        rf"\left.{gold}\right.",
        f" {gold} ".replace(r"\frac", r"\tfrac "),
    ]
    assert [text for text in [*around, *same] if equal(gold, text) is None] == []
    assert [text for text in other if equal(gold, text) is not None] == []


@settings(max_examples=25)
@given(shapes=st.permutations(SHAPES), numbers=st.lists(st.integers(2, 99), min_size=4, max_size=4, unique=True))
def test_answers_to_other_questions_are_others(shapes: list[Shape], numbers: list[int]) -> None:
    a, b, c, d = sorted(numbers)
    assert equal(shapes[0](a, c)[0], shapes[0](b, d)[0]) is None, "the same shape with other numbers"
    assert equal(shapes[0](a, c)[0], shapes[1](b, d)[0]) is None, "another shape"
