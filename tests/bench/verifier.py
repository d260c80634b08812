"""The verifier on labelled pairs of answers: recall and false-positive rate by set, beside math-verify alone.

The pairs are third-party data and no part of the project: `verifier_*.jsonl.gz` with rows {"gold", "response",
"label"}, in the folder that VERIFIER_PAIRS names, or in shared/data beside the checkout. Contested labels, which no
general rule can meet, are told apart with their reason.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from common.errors import DataError
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Verdict

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
TARGETS = {"hvm_dev": (0.80, 1), "olympiadbench_scorer": (0.90, 0), "nemo_answer_judge": (0.85, 0)}
"""Set to (least recall, most false positives)."""

CONTESTED = {
    ("6.018", r"6\frac{1}{64}"): "6 1/64 is 6.0156",
    ("5040", r"\dfrac{15840}{\pi}"): "15840/pi is 5042.03",
    (r"113.4\%", r"113.33\%"): "113.33 rounds to 113.3",
    ("ellipszis", "ellipse"): "the gold answer is not English",
    (r"\begin{pmatrix}5/3\\5/3\\4/3\end{pmatrix}", r"\begin{pmatrix} 5 \\ 5 \\ 4 \end{pmatrix}"): "only as a direction",
    (r"m \neq 1", r"m \geq 2"): "other numbers",
    (
        "\\[\n(a, b, c) = (k, k+1, k+2) \\quad \\text{and all cyclic permutations, with } k \\in \\mathbb{Z}\n\\]",
        r"(a, b, c) \text{ such that } (a - b, b - c, c - a) \text{ is }"
        r" (1, 1, -2), (-2, 1, 1), \text{ or } (1, -2, 1)",
    ): "rising triples and falling ones",
    (r"7 \times 10^{35}", r"7.1 \cdot 10^{35}"): "labelled right and wrong",
    (r"7 \times 10^{35}, 0.002", r"0.001, 7.1 \cdot 10^{35}"): "its own tolerance",
    ("0.003, 5.233", "0.002, 5.234"): "its own tolerance",
    ("1000.99", "1000,99"): "a decimal comma",
    ("1,22", "1.22"): "a decimal comma",
    ("0,111", "0.111"): "a decimal comma",
    ("$10$", r"Answer \( (9+1) \)"): "left unevaluated",
    ("$9$", "Answer $ \n 9 \n $"): "that library's extraction",
    ("$9$", "Answer \\( \n 9 \n \\)"): "that library's extraction",
    (r"$1 = \zzz = x = 0$", "$0$"): "that library's reading of a chain",
    (
        r"$(\begin{pmatrix}\frac{1}{3}\\ \frac{1}{5} \end{pmatrix})$",
        r"$\begin{pmatrix}0.33\\0.2 \end{pmatrix}$",
    ): "rounded to two digits",
    (r"$x \in [-2,7]$", r"$-2 \\le x \\le 7$"): "that library compares one way only",
    ("$\text{13}$", "$13$"): "a tabulator and ext",
}


def run() -> list[dict[str, Any]]:
    """One row for each set: `ratio` is the recall without contested labels."""
    rows = []
    folder = Path(os.environ.get("VERIFIER_PAIRS", BESIDE))
    files = sorted(folder.glob("verifier_*.jsonl.gz"))
    if not files:
        raise DataError(f"no verifier_*.jsonl.gz in {folder}; set VERIFIER_PAIRS to the folder that has labelled pairs")
    for file in files:
        with gzip.open(file) as lines:
            pairs = [json.loads(line) for line in lines]
        name = file.name.removeprefix("verifier_").removesuffix(".jsonl.gz")
        counted, kinds = _counts(pairs, _judged("math", pairs))
        bare, _ = _counts(pairs, _judged("paper", pairs))
        recall, most = TARGETS.get(name, (bare[0], bare[1]))
        holds = counted[2] >= recall and counted[3] <= most
        detail = {"recall": counted[0], "wrong_accepted": counted[1], "without_contested": counted[2:], "errors": kinds}
        detail["math_verify_alone"] = bare[:2]
        rows.append({"name": name, "ratio": counted[2], "target": recall, "holds": holds, "detail": detail})
    return rows


def _judged(kind: Literal["math", "paper"], pairs: Sequence[dict[str, Any]]) -> list[Verdict]:
    with Sandbox(2, deadline_s=5.0, memory_mb=1024, max_chars=4000, tasks_per_child=10**6, verifier=kind) as sandbox:
        return sandbox.verify([Item(pair["gold"], _completion(pair)) for pair in pairs])


def _completion(pair: dict[str, Any]) -> str:
    """A response that is nothing but an answer comes in a box; the library's own tests are whole completions."""
    response = str(pair["response"])
    whole = r"\boxed" in response or (pair.get("meta") or {}).get("group")
    return response if whole else rf"\boxed{{{response}}}"


def _counts(
    pairs: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]
) -> tuple[tuple[float, int, float, int], dict[str, int]]:
    """Recall and wrongly accepted; both again without contested labels; and the errors by kind."""
    kinds: Counter[str] = Counter()
    right, met, wrong, fair, fair_met, fair_wrong = 0, 0, 0, 0, 0, 0
    for pair, verdict in zip(pairs, verdicts, strict=True):
        contested = CONTESTED.get((pair["gold"], pair["response"]))
        right += pair["label"]
        met += pair["label"] and verdict.correct
        wrong += not pair["label"] and verdict.correct
        if contested is None:
            fair += pair["label"]
            fair_met += pair["label"] and verdict.correct
            fair_wrong += not pair["label"] and verdict.correct
        if verdict.correct != pair["label"]:
            kind = f"contested: {contested}" if contested else _kind(pair, verdict)
            kinds[kind] += 1
            print(f"{kind}\n  gold     {pair['gold']!r:.150}\n  response {verdict.extracted!r:.150}", file=sys.stderr)
    return (round(met / right, 3), wrong, round(fair_met / fair, 3), fair_wrong), dict(kinds.most_common())


def _kind(pair: dict[str, Any], verdict: Verdict) -> str:
    if verdict.correct:
        return f"accepted by {verdict.rule!r}"
    if verdict.status != "wrong":
        return f"missed: {verdict.status}"
    words = sum(part.isalpha() and len(part) > 2 for part in str(pair["gold"]).replace("\\text", " ").split())
    return "missed: words" if words > 2 else "missed: mathematics"
