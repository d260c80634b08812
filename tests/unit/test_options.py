"""From the [learner] section to what the policy is trained with."""

from __future__ import annotations

import pytest

from common.settings import LearnerSettings, Sections
from learner.loss_inputs import LossOptions
from learner.options import PolicyOptions, policy_options


def test_the_defaults_of_both_are_the_same() -> None:
    assert policy_options(Sections()).loss == LossOptions()
    assert policy_options(Sections()).max_tokens == PolicyOptions().max_tokens


def test_every_option_of_the_loss_is_a_setting() -> None:
    given = {
        "objective": "gspo",
        "clip_low": 0.01,
        "clip_high": 0.02,
        "correction": "icepop",
        "tis_cap": 3.0,
        "icepop_low": 0.6,
        "icepop_high": 4.0,
        "sequence_mask": "product",
        "mask_low": 0.2,
        "mask_high": 5.0,
        "kl_coefficient": 0.001,
        "kl_estimator": "k3",
        "entropy_coefficient": 0.002,
    }
    settings = Sections.model_validate(
        {"learner": given | {"normalization": "fixed_length"}, "sampling": {"max_tokens": 99}}
    )
    options = policy_options(settings)
    assert vars(options.loss) == given
    assert (options.normalization, options.max_tokens) == ("fixed_length", 99)


@pytest.mark.parametrize(
    ("given", "clip", "mask"),
    [
        ({}, (0.2, 0.28), (0.1, 10.0)),
        ({"objective": "gspo", "sequence_mask": "geometric"}, (3e-4, 4e-4), (0.99, 1.01)),
        ({"objective": "cispo", "correction": "none"}, (1.0, 4.0), (0.1, 10.0)),
        ({"clip_high": 0.3, "sequence_mask": "geometric", "mask_low": 0.5}, (0.2, 0.3), (0.5, 1.01)),
    ],
)
def test_unset_bounds_are_those_of_the_objective_and_the_mask(
    given: dict[str, object], clip: tuple[float, float], mask: tuple[float, float]
) -> None:
    learner = LearnerSettings.model_validate(given)
    assert (learner.clip_range, learner.mask_band) == (clip, mask)
