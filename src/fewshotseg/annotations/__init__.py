"""Reads annotation files of labelling tools as masks, and writes masks as such files."""

from fewshotseg.annotations.class_masks import labelmap_text, read_class_mask
from fewshotseg.annotations.coco import coco_annotations, coco_content, read_coco, to_coco
from fewshotseg.annotations.labelme import read_labelme, to_labelme
from fewshotseg.annotations.overlays import cutout, overlay
from fewshotseg.annotations.reading import read_annotations, read_example
from fewshotseg.annotations.yolo import to_yolo, yolo_data

__all__ = [
    "coco_annotations",
    "coco_content",
    "cutout",
    "labelmap_text",
    "overlay",
    "read_annotations",
    "read_class_mask",
    "read_coco",
    "read_example",
    "read_labelme",
    "to_coco",
    "to_labelme",
    "to_yolo",
    "yolo_data",
]
