"""Measuring models over episodes."""

from fewshotseg.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
