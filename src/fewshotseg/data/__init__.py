"""Data sets as sources, episodes drawn from them, class splits and transforms. Never imports models."""
