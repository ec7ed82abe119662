"""The command ``fewshotseg``."""
