"""The notations in which the cold start's worked solutions write an answer: several, all right by the task's scorer.

A duration between two bare moments is written as asked, 03:46; that of a meeting, a flight or a backup as a log has it,
03:46:00. A sum of complex numbers is written like its terms, -83.0 + 9.0i; a difference as Python prints it, -83+9j.
Which one it is depends on nothing but the question's wording, so the policy learns it as one habit for each wording.
The rule verifier knows the gold answer's notation alone. Everything else is written as the gold answer is.
"""

from __future__ import annotations

import json

from common.tasks import Problem

AS_ASKED = ("What is the duration between ", "Calculate the time difference between ", "How much time elapsed from ")


def solution(problem: Problem) -> str:
    """The worked solution with its answer in the notation of the question's wording.

    Raises ValueError for a problem without one.
    """
    if problem.solution is None:
        raise ValueError(f"{problem.meta['task']} has no worked solution for {problem.question!r}")
    steps = problem.solution.rpartition("\\boxed{")[0]
    return f"{steps}\\boxed{{{answer(problem)}}}"


def answer(problem: Problem) -> str:
    """The gold answer in that notation."""
    match problem.meta["task"]:
        case "time_intervals" if not problem.question.startswith(AS_ASKED):
            return f"{problem.answer}:00"
        case "complex_arithmetic" if problem.question.startswith("Subtract"):
            real, imaginary = json.loads(problem.meta["entry"])["result"]
            return f"{real}{imaginary:+d}j"
    return problem.answer
