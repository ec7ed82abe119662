"""Warnings that are given once in a process."""

import warnings

_said: set[str] = set()


def say_once(topic: str, sentence: str) -> None:
    """Warn, unless this process was warned of the topic before."""
    if topic not in _said:
        warnings.warn(sentence, stacklevel=3)
        _said.add(topic)  # not before: where warnings are errors, every one is raised
