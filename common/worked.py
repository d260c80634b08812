"""Worked solutions as data sets write them, in the form that the verifier reads."""

from __future__ import annotations

import re

_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")  # GSM8K's "48/2 = <<48/2=24>>24"
_FINAL_ANSWER = re.compile(r"\n?####.*\Z", re.DOTALL)  # GSM8K's last line


def worked_solution(text: str, answer: str) -> str:
    """The steps without GSM8K's marks, ending in `\\boxed{answer}` unless a box is there already.

    `worked_solution("2*3 = <<2*3=6>>6 apples.\\n#### 6", "6")` is `"2*3 = 6 apples.\\n\\\\boxed{6}"`. A model
    trained on anything else would first have to find out by chance what the verifier looks for.
    """
    steps = _FINAL_ANSWER.sub("", _CALCULATOR_MARK.sub("", text)).strip()
    if "\\boxed{" in steps:
        return steps
    return f"{steps}\n\\boxed{{{answer}}}".lstrip()
