"""Detects image files that were cut off, which decoders accept if only a few bytes are missing."""

import re
from pathlib import Path

_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # in pixel data FF is followed by 00 or begins a restart marker


def cut_short(path: Path) -> bool:
    """Whether a JPEG, PNG or WebP file lacks its end; False for all other formats."""
    content = path.read_bytes()
    if content.startswith(b"\xff\xd8"):
        return not _has_end_of_jpeg(content)
    if content.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in content
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return False


def _has_end_of_jpeg(content: bytes) -> bool:
    """Go from marker to marker, as an embedded preview may have its own end marker, and data may follow the end."""
    position = 2
    while marker := _MARKER.search(content, position):
        position = marker.end()
        kind = content[position - 1]
        if kind == 0xD9:
            return True
        if kind not in {0x01, 0xD8}:  # all others are followed by their length
            position += int.from_bytes(content[position : position + 2], "big")
    return False
