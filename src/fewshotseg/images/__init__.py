"""Reads photographs and masks from files, PIL images, arrays or tensors, and converts them to tensors."""

from fewshotseg.images.files import photo_endings
from fewshotseg.images.masks import MaskLike, read_binary_mask, read_mask, read_object_mask, to_mask, write_mask
from fewshotseg.images.photos import ImageLike, read_image, read_reduced, reduce_image, to_image
from fewshotseg.images.resized import keep_location, keep_object

__all__ = [
    "ImageLike",
    "MaskLike",
    "keep_location",
    "keep_object",
    "photo_endings",
    "read_binary_mask",
    "read_image",
    "read_mask",
    "read_object_mask",
    "read_reduced",
    "reduce_image",
    "to_image",
    "to_mask",
    "write_mask",
]
