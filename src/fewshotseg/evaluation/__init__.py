"""Measuring models over episodes."""

from fewshotseg.evaluation.evaluate import StagedModel, evaluate

__all__ = ["StagedModel", "evaluate"]
