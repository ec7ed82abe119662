"""The former place of `fewshotseg.models.fast.folding`, for scripts that import `folded` from here."""

from fewshotseg.models.fast.folding import folded

__all__ = ["folded"]
