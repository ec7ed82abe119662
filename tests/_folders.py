"""Small data sets in the layouts that the sources read."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from fewshotseg.data import COCO_CLASSES


def save_image(path, size=(6, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def save_mask(path, values, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=np.uint8))
    if palette:
        image.putpalette([7, 200, 90] * 256)
    image.save(path)
    return path


def mask_of(*class_ids, size=(6, 4)):
    """A mask with a column of each class, background elsewhere."""
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for column, class_id in enumerate(class_ids):
        mask[:, column] = class_id
    return mask


def make_folder(root, items):
    """``images/`` and ``masks/`` with a column of each class; items: name to class ids."""
    for name, class_ids in items.items():
        save_image(root / "images" / f"{name}.jpg")
        save_mask(root / "masks" / f"{name}.png", mask_of(*class_ids))
    return root


def make_voc(root, *, train=("t1", "t2"), val=("v1",), sbd=(), main_train=()):
    """VOC2012; the images of ``sbd`` have no mask of VOC. Every VOC mask shows class 20."""
    voc = root / "VOCdevkit" / "VOC2012"
    for name in {*train, *val, *sbd}:
        save_image(voc / "JPEGImages" / f"{name}.jpg")
    for name in {*train, *val}:
        save_mask(voc / "SegmentationClass" / f"{name}.png", mask_of(20, 255))
    for path, names in {"Segmentation/train": train, "Segmentation/val": val, "Main/train": main_train}.items():
        file = voc / "ImageSets" / f"{path}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{name}\n" for name in names))
    return voc


def make_coco(
    root, annotations, *, images=({"id": 9, "file_name": "nine.jpg", "height": 4, "width": 6},), categories=None
):
    """``images/`` and ``instances.json``; each annotation gets its position as id."""
    for image in images:
        save_image(root / "images" / image["file_name"], (image["width"], image["height"]))
    content = {
        "images": list(images),
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations)],
        "categories": categories
        or [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "sign"}],
    }
    path = Path(root, "instances.json")
    path.write_text(json.dumps(content))
    return path


def box(left, top, right, bottom, *, category_id, image_id=9, **extra):
    polygon = [left, top, right, top, right, bottom, left, bottom]
    return {"image_id": image_id, "category_id": category_id, "segmentation": [polygon], "iscrowd": 0, **extra}


def make_classwise(root, classes, *, images=3, size=(48, 40)):
    """``class/test/origin`` and ``class/test/groundtruth`` with squares of growing size."""
    for name in classes:
        for number in range(images):
            save_image(root / name / "test/origin" / f"{number}.jpg", size)
            mask = np.zeros((size[1], size[0]), dtype=np.uint8)
            mask[5 : 20 + 5 * number, 5 : 20 + 5 * number] = 255
            save_mask(root / name / "test/groundtruth" / f"{number}.png", mask, palette=False)
    return root


def make_part_of_coco(root, shown, size=(6, 4)):
    """A folder with images/ and instances.json of COCO's 80 classes; shown: the classes of each image, in columns."""
    width, height = size
    step = width // 6
    images = [{"id": n, "file_name": f"{n:03}.jpg", "height": height, "width": width} for n, _ in enumerate(shown)]
    boxes = [
        box(step * column, 0, step * (column + 1), height, category_id=class_id, image_id=number)
        for number, class_ids in enumerate(shown)
        for column, class_id in enumerate(class_ids)
    ]
    categories = [{"id": class_id, "name": name} for class_id, name in COCO_CLASSES.items()]
    return make_coco(root, boxes, images=images, categories=categories).parent
