"""Masks of several classes in colours, with CVAT's ``labelmap.txt``, which names the colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewshotseg._checks import check_path, name_some, one_line, shown
from fewshotseg._io import StrPath
from fewshotseg.annotations.labels import check_names, label_masks
from fewshotseg.images.files import decode, upright
from fewshotseg.images.mask_rule import VOID
from fewshotseg.images.masks import palette
from fewshotseg.images.photos import rgb

LABELMAP = "labelmap.txt"
BACKGROUND = "background"

Colour = tuple[int, int, int]


def read_class_mask(path: StrPath, labelmap: StrPath) -> dict[str, Tensor]:
    """Read a mask whose colours stand for classes, such as one in CVAT's format "Segmentation mask".

    Args:
        path: A PNG file, palette or RGB.
        labelmap: The text file that names the class of each colour, see `labelmap_text`.

    Returns:
        Class -> its mask, for each class in the file: ``(H, W)`` int64 of 0 background, 1 object and 255 void. Pixels
        in the colour of PASCAL VOC's void are void.

    Raises:
        ValueError: If a file cannot be read, or the mask has a colour that is not listed.
        OSError: If there is no such file, or it may not be read.
    """
    path = check_path("path", path)
    names = _read_labelmap(check_path("labelmap", labelmap))
    pixels, void = _colours(path), _packed(_void())
    found = {*np.unique(pixels).tolist()}
    named = {_packed(colour): name for colour, name in names.items()}
    unknown = [f"#{value:06x}" for value in sorted(found - {*named, 0, void})]
    if unknown:
        known = name_some([f"#{value:06x} {name}" for value, name in named.items()])
        raise ValueError(f"{path} must have the colours of {labelmap}, {known}, got also {name_some(unknown)}")
    inside: dict[str, NDArray[np.bool_]] = {}
    for value, name in named.items():  # several colours may have one name
        if value in found and name != BACKGROUND:
            inside[name] = inside.get(name, np.False_) | (pixels == value)
    return label_masks(inside, None if void in named else pixels == void)


def find_labelmap(mask: Path) -> Path | None:
    """Find the ``labelmap.txt`` of a mask in its folder or the parent; None if it lists none of the mask's colours."""
    for folder in mask.absolute().parents[:2]:
        if (folder / LABELMAP).is_file():
            named = {_packed(colour) for colour in _read_labelmap(folder / LABELMAP)} - {0}
            return folder / LABELMAP if not named.isdisjoint(np.unique(_colours(mask)).tolist()) else None
    return None


def check_labelmap_names(names: Sequence[str]) -> list[str]:
    """Return the names as a list.

    Raises:
        ValueError: If they are not 1 to 254 different names, or a ``labelmap.txt`` cannot hold one of them.
    """
    listed = check_names(names)
    for name in listed:
        is_whole = name == name.strip() and name.splitlines() == [name] and ":" not in name
        if not is_whole or name.startswith("#") or name == BACKGROUND:
            raise ValueError(
                f"names must be such that {LABELMAP} can hold them: without ':', line breaks and spaces at the ends, "
                f"not beginning with '#' and not {BACKGROUND}, got {shown(name)}"
            )
    return listed


def labelmap_text(names: Sequence[str]) -> str:
    """Write the text of a ``labelmap.txt`` for the colours of `fewshotseg.images.write_mask`.

    Raises:
        ValueError: If a name is one that the file cannot hold, see `check_labelmap_names`.

    Example:
        >>> print(labelmap_text(["mug", "cup"]))
        # label:color_rgb:parts:actions
        background:0,0,0::
        mug:128,0,0::
        cup:0,128,0::
        <BLANKLINE>
    """
    colours = [tuple(palette()[3 * number : 3 * number + 3]) for number in range(len(names) + 1)]
    lines = [
        f"{name}:{','.join(map(str, colour))}::"
        for name, colour in zip([BACKGROUND, *check_labelmap_names(names)], colours, strict=True)
    ]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


def _read_labelmap(path: Path) -> dict[Colour, str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, with lines such as mug:128,0,0::") from error
    names: dict[Colour, str] = {}
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        numbers = [part.strip() for part in rest.split(":")[0].split(",")]
        are_bytes = all(number.isascii() and number.isdigit() and int(number) < 256 for number in numbers)
        if not name.strip() or len(numbers) != 3 or not are_bytes:
            raise ValueError(f"{path} must have lines such as mug:128,0,0::, got {shown(one_line(line))}")
        red, green, blue = map(int, numbers)
        earlier = names.setdefault((red, green, blue), name.strip())
        if earlier != name.strip():
            raise ValueError(
                f"{path} must have one name for each colour, got {shown(earlier)} and {shown(name.strip())} for "
                f"{red},{green},{blue}"
            )
    return names


def _colours(path: Path) -> NDArray[np.int64]:
    """Read the colours of an image as one number for each pixel, ``(H, W)``."""
    pixels = decode(path, lambda image: np.asarray(rgb(upright(image)))).astype(np.int64)
    return np.asarray((pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2])


def _packed(colour: Colour) -> int:
    return (colour[0] << 16) + (colour[1] << 8) + colour[2]


def _void() -> Colour:
    red, green, blue = palette()[3 * VOID :]
    return red, green, blue
