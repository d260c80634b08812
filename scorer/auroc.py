"""As `common.auroc`, for the training of reward models."""

from common.auroc import auroc as auroc
from common.auroc import auroc_within as auroc_within
