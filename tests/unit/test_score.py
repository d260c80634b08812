"""What a checkpoint is worth."""

from __future__ import annotations

import pytest

from learner.score import Score, Scores


def test_an_evaluation_counts_above_what_was_seen_in_training() -> None:
    assert Score(False, 0.9) < Score(True, 0.1) < Score(True, 0.2)


def test_it_is_of_what_came_since_the_last_checkpoint() -> None:
    scores = Scores()
    assert scores.now is None
    for accuracy in (0.2, 0.6):
        scores.trained(accuracy)
    assert scores.now is not None and scores.now.accuracy == pytest.approx(0.4) and not scores.now.evaluated
    scores.evaluated(0.3)
    scores.evaluated(0.1)
    assert scores.now == Score(True, 0.1), "the newest"
    scores.saved()
    assert scores.now is None
    scores.trained(1.0)
    assert scores.now == Score(False, 1.0)
