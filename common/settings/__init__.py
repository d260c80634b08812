"""Every setting of a run: one pydantic model per section of the TOML file.

The string below a field is its help text (`hero COMMAND --help` prints it with the default). What cannot work
is refused here, at start, with key, value and remedy; `common/config.py` reads file, environment and flags.
"""

from common.settings.evaluation import EvalSet, EvalSettings
from common.settings.running import (
    ActorSettings,
    BrokerSettings,
    DataSettings,
    MetricsSettings,
    ModelSettings,
    RunSettings,
    SamplingSettings,
    TracingSettings,
    WeightsSettings,
)
from common.settings.scoring import RewardModelSettings, RewardSettings, ScorerSettings, VerifierSettings
from common.settings.section import Section
from common.settings.together import Sections, contradictions
from common.settings.training import LearnerSettings, RMSettings, SFTSettings

__all__ = [
    "ActorSettings",
    "BrokerSettings",
    "DataSettings",
    "EvalSet",
    "EvalSettings",
    "LearnerSettings",
    "MetricsSettings",
    "ModelSettings",
    "RMSettings",
    "RewardModelSettings",
    "RewardSettings",
    "RunSettings",
    "SFTSettings",
    "SamplingSettings",
    "ScorerSettings",
    "Section",
    "Sections",
    "TracingSettings",
    "VerifierSettings",
    "WeightsSettings",
    "contradictions",
]
