"""Which answers mean the same, and by which rule; what a lenient comparison would wrongly accept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.equivalence.compare import Options, equal
from scorer.equivalence.latex import one_spelling

SAME = [
    ("7/2", r"3\frac{1}{2}", "same number"),
    ("3.5", "3 1/2", "same number"),
    ("1234", "1,234", "same number"),
    ("-5", "- 5", "same text"),
    ("780", r"7.8 \times 10^2", "same number"),
    ("5", "101_2", "same number"),
    ("1.5", r"\frac32", "same number"),
    ("½", r"\frac{1}{2}", "same text"),
    ("12", r"12^{\mathrm{th}}", "same text"),
    (r"\frac{1}{3}", "0.333", "rounded"),
    ("0.458", r"\frac{27}{59}", "rounded"),
    (r"16\pi", "50.27", "rounded"),
    (r"2\sqrt{3}", r"\sqrt{12}", "same value"),
    (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac27", "same expression"),
    (r"\frac{3}{2}n + \frac{1}{2}m", r"\frac{3n+m}{2}", "same expression"),
    (r"k\pi", r"n\pi", "same form, n for k"),
    ("5 cm", "5", "same number"),
    ("5 cm", "50 mm", "units converted"),
    ("100 cm", "1 m", "units converted"),
    ("60 km/h", r"60\text{ kilometers per hour}", "same number"),
    (r"5\text{ apples}", "5", "same number"),
    (r"\$5.50", "5.50", "same number"),
    ("1,234 apples", "1234", "same number"),
    (r"28\%", "28", "percent, same number"),
    (r"28\%", "28 percent", "same text"),
    (r"28\%", "0.28", "percent, same number"),
    ("0.6", r"60\%", "percent, same number"),
    (r"41.4\%", r"\sqrt{2} - 1", "percent, rounded"),
    (r"\frac{\pi}{6}", r"30^\circ", "degrees and radians"),
    ("30", "30°", "same number"),
    ("1,-2", "-2, 1", "same answers in any order"),
    (r"1 \pm \sqrt{19}", r"1 + \sqrt{19}, 1 - \sqrt{19}", "same answers in any order"),
    (r"0, \pm 1", r"\{-1, 0, 1\}", "same answers in any order"),
    (r"(\pm 1, 2)", "(1,2),(-1,2)", "same answers in any order"),
    (r"\frac{1}{8}\text{ and }\frac{1}{10}", "1/8, 1/10", "same answers in any order"),
    ("②③", "2, 3", "same answers in any order"),
    ("(1, 2)", r"\left( 1,\ 2 \right)", "same text"),
    ("(2, 0.5)", r"(2, \frac{1}{2})", "part by part"),
    (r"[0,1]", r"0 \le x \le 1", "same set"),
    (r"0 \leqslant x < 1", "[0, 1)", "same set"),
    (r"a \leqslant -2 \text{ or } a = 1", r"(-\infty, -2] \cup \{1\}", "same set"),
    (r"\{x | 2 < x < 3\}", "(2, 3)", "same set"),
    (r"\{x | x < 3/2\} - \{-6\}", r"(-\infty,-6) \cup (-6, 3/2)", "same set"),
    (r"x \neq 2", r"(-\infty,2)\cup(2,\infty)", "same set"),
    ("x < 1", "-x > -1", "same set"),
    (r"x \in [-2,7]", "[-2, 7]", "part by part"),
    (r"\begin{pmatrix} 1/5 \\ -2 \end{pmatrix}", r"\begin{bmatrix} 0.2 \\ -2 \end{bmatrix}", "entry by entry"),
    (r"\begin{pmatrix} -7 \\ 16 \end{pmatrix}", "(-7,16)", "entry by entry"),
    ("x = 5", "5", "assigned, same form"),
    ("5", "x = 2 + 3 = 5", "assigned, same form"),
    ("y = -8(x-3)", "-8x + 24", "assigned, same expression"),
    ("xy = 6", r"\frac{6}{x}", "solves the equation"),
    ("x^2+y^2=1", "1-x^2-y^2=0", "same equation"),
    ("b < a < d", "b, a, d", "order of names"),
    ("5:8", r"\frac58", "same ratio"),
    ("10:16", "5:8", "same ratio"),
    ("3:30 PM", "15:30", "same time"),
    ("B", "(B)", "same choice"),
    (r"\text{B}", "B. 42", "same choice"),
    (r"\text{yes}", "Yes.", "same words"),
    ("three", "3", "same words"),
    (r"\text{infinitely many}", r"\infty", "same words"),
    (r"\emptyset", "no solution", "same words"),
    (r"\mathbb{R}", "all real numbers", "same words"),
    ("Kafelnikov served in the first game", "Kafelnikov", "named in the sentence"),
    ("It takes 5 days", "5", "number among words"),
    (r"\sqrt{51}", "√(51)", "same text"),
    (r"2\sqrt{\sqrt{3}+1}", "2√(√(3)+1)", "same text"),
    (r"\frac{\pi}{2}", "pi/2", "same value"),
    (r"x^{2}+1", "x**2 + 1", "same text"),
    (r"\sqrt{x}", "x^(1/2)", "same expression"),
    ("42", "**42**", "same text"),
    ("15", r"\15", "same text"),
    (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{E_1+2E_2}{3}", "same expression"),
    ("1+i", r"\sqrt{2}e^{i\pi/4}", "same value"),
    ("2N+1", "2n+1", "same form, n for N"),
    ("3/16", "0.0011_2", "same number"),
    ("10", r"\angle CBD = \angle CDB = 10^\circ", "assigned, same number"),
    ("40", r"\text{Volume} = 20 \times 2 = 40 \text{ cubic inches}", "assigned, same number"),
    ("2^{9}", r"a_{2^{3}-1} = 2^{9}", "assigned, same form"),
    ("30°", r"30 \text{ degrees}", "same form"),
    (r"\$18", r"\$18 per day", "same form"),
    (r"(-\infty,2)\cup(3,\infty)", r"x = (-\infty,2)\cup(3,\infty)", "same form"),
    (r"\{x | x<-1 \text{ or } x>1\}", r"(-\infty,-1)\cup(1,\infty)", "same set"),
    (r"A = \{x \mid x < 1\}", r"(-\infty,1)", "same set"),
    (r"x \in \mathbb{R}, x \neq 2", r"x \neq 2", "same set"),
    (r"\{1 \pm \sqrt{5}, -2\}", r"x \in \{-2, 1 \pm \sqrt{5}\}", "same answers in any order"),
    (r"\begin{cases} x=1 \\ y=2 \end{cases}", "y = 2, x = 1", "same answers in any order"),
    ("1 < x < y", "1 < x < y + 0", "side by side"),
    ("x = 1, y = 2", "$x = 1$\n$y = 2$", "same text"),
    ("Yes", "Yes, because n is even", "sentence names it"),
    ("(c)", r"\text{(C)}", "same choice"),
    ("A: 4x+3", "A", "same choice"),
]


@pytest.mark.parametrize(("gold", "answer", "rule"), SAME)
def test_the_same_answer_and_the_rule(gold: str, answer: str, rule: str) -> None:
    assert equal(gold, answer) == rule


DIFFERENT = [
    ("9", r"9\%"),
    ("100", r"100\%"),
    ("5 cm", "5 m"),
    ("6 hours", "6 minutes"),
    ("50 dollars", "50 euros"),
    ("101", "101_2"),
    ("101_2", "101"),
    (r"\{1,2\}", "(1,2)"),
    ("(1,2)", r"\{1,2\}"),
    ("(1,2)", "(2,1)"),
    ("[0,1]", "(0,1)"),
    ("1e-7", "2e-7"),
    ("4", "2+2"),
    ("6", r"2\cdot 3"),
    ("5", "5x"),
    ("2", "2ab"),
    ("5", "5, 6"),
    ("12", "1,2"),
    ("1234", "1, 234"),
    ("1003", "1.00e3"),
    ("1/3", "0.3"),
    (r"\pi", "3"),
    (r"\pi", "3.1"),
    ("3.14", "3"),
    ("1024", "1000"),
    ("30", r"30\pi"),
    ("x > 2", "x < 2"),
    ("x^2=4", "2"),
    ("7 = 11a+c", "11a+c"),
    ("2x+z=1", "1"),
    ("n", "m"),
    ("2x", "2y"),
    ("ab", "cd"),
    ("A", "B"),
    ("A", "A triangle"),
    ("1:2:3", "1:2:4"),
    ("2:1", "1:2"),
    ("3:30 PM", "3:30 AM"),
    ("yes", "no"),
    ("odd", "neither odd nor even"),
    ("The stopped clock, not the slow one", "slow"),
    ("Kafelnikov served in the first game", "served"),
    ("5", ""),
    ("1e400 cm", "1e399 mm"),
    ("A: 4x+3", "A: 5x+3"),
    (r"\frac{1}{2^{2012}}", r"\frac{2}{2^{2012}}"),
    (r"\frac{1}{2^{2012}}", "0"),
    (r"1+\frac{1}{2014 \cdot 2015}", r"1+\frac{1}{2015 \cdot 2015}"),
    (r"2 \binom{100}{50} + 1", r"3 \binom{100}{50} + 1"),
    (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{1}{4} E_{1}+\frac{2}{3} E_{2}"),
    (r"\log _{3}^{\frac{7}{3}}", r"\log _{3}^{\frac{8}{3}}"),
    ("AB+ab", "2ab"),
    ("f'", "f"),
    ("y''+y=0", "y'+y=0"),
    (r"\sqrt{x^2}", "x"),
    (r"\lfloor n/2 \rfloor", r"\lceil n/2 \rceil"),
    ("a_{16}", "10"),
    ("2k cm", "2n m"),
    (r"1 \text{p.} 10 \text{k.}", r"1 \text{p.} 20 \text{k.}"),
    (r"x \in [-2,7]", r"x^2 \in [-2,7]"),
    (r"\{x | x < 3\}", r"\{x^2 | x < 3\}"),
    (r"\{x | x<-1 \text{ or } x>1\}", r"\{x | x<-1 \text{ or } x>2\}"),
    (r"\begin{cases} a<0 \\ b^2<4ac \end{cases}", r"\begin{cases} a<0 \\ b^2<5ac \end{cases}"),
    ("$y_1=1-x$\n$y_2=x$", "$y_1=1+x$\n$y_2=x$"),
    ("1 < x < y", "1 < x < 2y"),
    (r"\lambda_{\text{red}}/\sqrt{2}", r"\lambda_{\text{red}}/2"),
    ("line segment, circle", "line segment"),
    ("circle", "line segment, circle"),
    (r"-5 \text{ degrees Celsius}", r"5 \text{ degrees Celsius}"),
    (r"\text{if } k > 2", r"\text{if } k \geq 2"),
    (r"\frac{dM}{dt} = 5M^{6}", r"\frac{dM}{dt} = 7M^{6}"),
    (r"20 \cos 1 = 10.8", r"20 \cos 1 = 11.9"),
]


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_another_answer(gold: str, answer: str) -> None:
    assert equal(gold, answer) is None


def test_what_is_left_unevaluated_is_a_setting() -> None:
    assert equal("4", "2+2", Options(unevaluated=True)) == "same value"
    assert equal("2+2", "2 + 2") == "same text", "where the gold is one itself"


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        (r"$\dfrac{1}{2}\,$", r"\frac{1}{2}"),
        (r"\boxed{\text{42}}.", r"\text{42}"),
        (r"f(x) = \\frac{\\pi}{2}", r"f(x) = \frac{\pi }{2}".replace("pi }", "pi}")),
        ("3<sup>x</sup> ≥ x²", r"3^{x} \ge x^{2}"),
        (r"32,\! 349", "32349"),
        (r"a \leqslant b \geq c \neq d", r"a \le b \ge c \ne d"),
        (r"90^\circ", r"90\deg"),
        ("28 pct", r"28 \%"),
    ],
)
def test_one_spelling(written: str, spelling: str) -> None:
    assert one_spelling(written) == spelling


@given(st.text(alphabet=r"\{}()[]<>=,.;:|$%^_+-*/ 0123456789abexyzfracsqrtpmtextinleq", max_size=80))
def test_any_text_is_itself_and_harms_nothing(text: str) -> None:
    assert one_spelling(one_spelling(text)) is not None
    assert equal(text, text) == "same text"
