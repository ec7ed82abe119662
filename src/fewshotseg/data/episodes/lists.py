"""Episodes by name: which images make one up, and lists of them that can be shared and checked."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fewshotseg._io import StrPath, write_atomically

_FORMAT = "fewshotseg episodes 1"


class EpisodeSpec(NamedTuple):
    """What an episode consists of, before anything is decoded.

    Attributes:
        class_id: The class to segment.
        query: The id of the query image in its source.
        supports: The ids of the support images, in their order.
    """

    class_id: int
    query: str
    supports: tuple[str, ...]


def episodes_hash(specs: Iterable[EpisodeSpec]) -> str:
    """The SHA-256 of a list of episodes: equal if and only if classes, images and all orders are.

    Args:
        specs: The episodes.

    Returns:
        64 hexadecimal digits, the same on every machine.

    Example:
        >>> episodes_hash([EpisodeSpec(1, "a", ("b",))])[:16]
        '5021df8550ee6370'
    """
    return _hash(_row(spec) for spec in specs)


def write_episodes(path: StrPath, specs: Iterable[EpisodeSpec]) -> None:
    """Write a list of episodes as JSON, one episode a line, with its hash.

    The file appears under its name when it is complete, and not before; its folder is made.

    Args:
        path: The file; one of that name is replaced.
        specs: The episodes.

    Raises:
        TypeError: If something is not an episode that JSON can hold.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> specs = [EpisodeSpec(1, "a", ("b",)), EpisodeSpec(2, "c", ("d",))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_episodes(f"{folder}/episodes.json", specs)
        ...     read_episodes(f"{folder}/episodes.json") == specs
        True
    """
    rows = [_row(spec) for spec in specs]
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = f'"format": {json.dumps(_FORMAT)},\n"sha256": {json.dumps(_hash(rows))}'
    write_atomically(Path(path), f'{{{head},\n"episodes": [\n{lines}\n]}}\n'.encode())


def read_episodes(path: StrPath) -> list[EpisodeSpec]:
    """Read a list of episodes that `write_episodes` wrote.

    Args:
        path: The file.

    Returns:
        The episodes in their order.

    Raises:
        ValueError: If the file is cut off, is something else, or was changed after it was written.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        specs = [_spec(*row) for row in content["episodes"]]
        recorded = content["sha256"]
    except (ValueError, TypeError, KeyError) as fault:
        raise ValueError(f"{path} must be a list of episodes ({_FORMAT!r}), got a fault: {fault!r}") from fault
    if episodes_hash(specs) != recorded:
        raise ValueError(f"{path} must hold the episodes it was written with, got another hash than {recorded}")
    return specs


def _row(spec: EpisodeSpec) -> list[object]:
    class_id, query, supports = spec
    return [int(class_id), query, list(supports)]


def _spec(class_id: object, query: object, supports: object) -> EpisodeSpec:
    if (
        isinstance(class_id, int)
        and isinstance(query, str)
        and isinstance(supports, list)
        and all(isinstance(support, str) for support in supports)
    ):
        return EpisodeSpec(class_id, query, tuple(supports))
    raise ValueError(f"no episode: {[class_id, query, supports]}")


def _hash(rows: Iterable[list[object]]) -> str:
    return hashlib.sha256(json.dumps(list(rows), separators=(",", ":")).encode()).hexdigest()
