"""Lists of episodes by image ids, and their files and hashes."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fewshotseg._checks import as_list, check_at_least, check_path, shown
from fewshotseg._io import StrPath, write_atomically
from fewshotseg.data.sources.source import VOID

_FORMAT = "fewshotseg episodes 1"


class EpisodeSpec(NamedTuple):
    """The class and the image ids of an episode.

    Attributes:
        class_id: The class to segment.
        query: The id of the query image in its source.
        supports: The ids of the support images, in order.
    """

    class_id: int
    query: str
    supports: tuple[str, ...]


def episodes_hash(specs: Iterable[EpisodeSpec]) -> str:
    """Compute the SHA-256 digest of a list of episodes, from classes, image ids and their order.

    Args:
        specs: The episodes.

    Returns:
        64 hexadecimal digits, the same on every machine.

    Raises:
        ValueError: If a class id is not possible.
        TypeError: If something is not an episode.

    Example:
        >>> episodes_hash([EpisodeSpec(1, "a", ("b",))])[:16]
        '5021df8550ee6370'
    """
    return _hash([_row(spec) for spec in check_specs(specs)])


def write_episodes(path: StrPath, specs: Iterable[EpisodeSpec]) -> None:
    """Write a list of episodes as JSON, one episode on each line, with its hash.

    The file is written atomically; its folder is created.

    Args:
        path: The file; an existing one is replaced.
        specs: The episodes.

    Raises:
        ValueError: If a class id is not possible.
        TypeError: If something is not an episode, or ``path`` is not a path.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> specs = [EpisodeSpec(1, "a", ("b",)), EpisodeSpec(2, "c", ("d",))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_episodes(f"{folder}/episodes.json", specs)
        ...     read_episodes(f"{folder}/episodes.json") == specs
        True
    """
    path = check_path("path", path)
    rows = [_row(spec) for spec in check_specs(specs)]
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = f'"format": {json.dumps(_FORMAT)},\n"sha256": {json.dumps(_hash(rows))}'
    write_atomically(path, f'{{{head},\n"episodes": [\n{lines}\n]}}\n'.encode())


def read_episodes(path: StrPath) -> list[EpisodeSpec]:
    """Read a list of episodes that `write_episodes` wrote.

    Args:
        path: The file.

    Returns:
        The episodes, in order.

    Raises:
        ValueError: If the file is damaged, of another format, or was edited.
        TypeError: If ``path`` is not a path.
        OSError: If the file cannot be read.
    """
    path = check_path("path", path)
    expected = f"{path} must be a list of episodes ({_FORMAT!r})"
    if path.exists() and not path.is_file():  # reading a pipe could block for ever
        raise ValueError(f"{expected}, got a folder or a special file")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{expected}, got no JSON: {fault}") from fault
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT:
        raise ValueError(f"{expected}, got format {shown(found)}")
    try:
        specs = check_specs(content.get("episodes"))
    except (ValueError, TypeError) as fault:
        raise ValueError(f"{expected}, but {fault}") from fault
    if episodes_hash(specs) != content.get("sha256"):
        raise ValueError(f"{path} must hold the episodes it was written with, got another hash than it records")
    return specs


def check_specs(specs: Iterable[EpisodeSpec]) -> list[EpisodeSpec]:
    """Return the episodes as a list; raise unless each is a class id, a query's id and supports' ids."""
    return [_check_spec(number, spec) for number, spec in enumerate(as_list("specs", specs, "a list of episodes"))]


def check_class_id(name: str, value: int) -> int:
    """Return ``value`` as a Python integer; raise unless it is a possible class id: 1 or more, but not 255, void."""
    value = check_at_least(name, value, 1)
    if value == VOID:
        raise ValueError(f"{name} must be the id of a class, got {VOID}, which is void")
    return value


def _check_spec(number: int, spec: EpisodeSpec) -> EpisodeSpec:
    if not isinstance(spec, Sequence) or isinstance(spec, str) or len(spec) != 3:
        raise TypeError(f"specs must hold (class_id, query, supports), got {shown(spec)} as episode {number}")
    class_id, query, supports = spec
    if isinstance(supports, str) or not isinstance(supports, Sequence):
        raise TypeError(f"specs must name supports in a tuple, got {shown(supports)} in episode {number}")
    for image_id in (query, *supports):
        if not isinstance(image_id, str):
            raise TypeError(f"specs must name images by their ids, got {shown(image_id)} in episode {number}")
    return EpisodeSpec(check_class_id(f"the class of episode {number} in specs", class_id), query, tuple(supports))


def _row(spec: EpisodeSpec) -> list[object]:
    return [spec.class_id, spec.query, list(spec.supports)]


def _hash(rows: list[list[object]]) -> str:
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
