"""Strategies of hypothesis that several files share."""

from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
