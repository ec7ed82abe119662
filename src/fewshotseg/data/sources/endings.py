"""Whether an image file has its end: decoders show what is there, and take a file that lacks a few bytes for whole."""

import re
from pathlib import Path

_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # FF in pixels is followed by 00, or begins a restart marker


def cut_short(path: Path) -> bool:
    """Whether a JPEG, PNG or WebP file ends before its format says that it does; False for all other formats."""
    content = path.read_bytes()
    if content.startswith(b"\xff\xd8"):
        return not _has_end_of_jpeg(content)
    if content.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in content
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return False


def _has_end_of_jpeg(content: bytes) -> bool:
    """Go from marker to marker, as a preview within may have an end of its own, and bytes may follow the end."""
    position = 2
    while marker := _MARKER.search(content, position):
        position = marker.end()
        kind = content[position - 1]
        if kind == 0xD9:
            return True
        if kind not in {0x01, 0xD8}:  # all others are followed by their length
            position += int.from_bytes(content[position : position + 2], "big")
    return False
