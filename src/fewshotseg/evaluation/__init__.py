"""Evaluates models on episodes."""

from fewshotseg.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
