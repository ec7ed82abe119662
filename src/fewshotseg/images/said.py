"""Warnings that are shown only once in a process."""

import warnings

_said: set[str] = set()


def say_once(topic: str, sentence: str) -> None:
    """Warn, unless this process has already warned about the topic."""
    if topic not in _said:
        warnings.warn(sentence, stacklevel=3)
        _said.add(topic)  # after the warning, which raises if warnings are errors
