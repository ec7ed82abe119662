"""Make the folders of the study from the official archives: smaller copies of the photographs, with their masks.

    python examples/study/make_folders.py voc VOC2012/ voc12_val
    python examples/study/make_folders.py voc VOC2012/ voc12_trainaug_part
    python examples/study/make_folders.py coco coco2017/ coco_mini

VOC: the longer side has 400 pixels, JPEG of quality 85; masks are those of SegmentationClassAug where there is such a
folder (`fewshotseg.data.write_sbd_masks` makes it of SBD; 939 masks of voc12_trainaug_part are SBD's). COCO: some
photographs of train2017/ and val2017/, JPEG of quality 88, and from annotations/ the objects of all classes but those
of COCO-20i's fold 3. Which images is said by the lists in ids/, and by VOC's own list of val. The photographs that the
study ran on were reduced by another program: expect its numbers again to rounding, not to the digit.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fewshotseg.data import COCO_CLASSES, PASCAL_CLASSES, coco20i

LONGER_SIDE = 400
QUALITY = {"voc": 85, "coco": 88}
IDS = Path(__file__).parent / "ids"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the folder that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("voc", "coco"))
    parser.add_argument("root", type=Path, help="the unpacked archive: VOC2012, or a folder of train2017, val2017, ...")
    parser.add_argument("out", type=Path, help="the folder to make; its name says which list")
    parser.add_argument("--ids", type=Path, help="another list, a name in each line")
    options = parser.parse_args(arguments)
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    ids = options.ids or IDS / f"{options.out.name}.txt"
    if options.kind == "voc" and not ids.exists():
        ids = options.root / "ImageSets/Segmentation/val.txt"
    names = ids.read_text(encoding="utf-8").split()
    (make_voc if options.kind == "voc" else make_coco)(options.root, options.out, names)
    print(f"{len(names)} images in {options.out}")


def make_voc(root: Path, out: Path, names: Sequence[str]) -> None:
    """Copy images and masks of VOC."""
    augmented = root / "SegmentationClassAug"
    masks = augmented if augmented.is_dir() else root / "SegmentationClass"
    (out / "masks").mkdir(exist_ok=True)
    for name in names:
        with Image.open(root / "JPEGImages" / f"{name}.jpg") as image, Image.open(masks / f"{name}.png") as mask:
            size = reduced(image.size)
            image.resize(size, Image.Resampling.LANCZOS).save(out / "images" / f"{name}.jpg", quality=QUALITY["voc"])
            mask.resize(size, Image.Resampling.NEAREST).save(out / "masks" / f"{name}.png")
    with (out / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "name"), (0, "background"), *PASCAL_CLASSES.items()])


def make_coco(root: Path, out: Path, names: Sequence[str]) -> None:
    """Copy photographs of COCO, and write their annotations."""
    wanted = set(names)
    shown = {COCO_CLASSES[class_id] for class_id in COCO_CLASSES if class_id not in coco20i(3).novel}
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    for part in ("train2017", "val2017"):
        found = json.loads((root / "annotations" / f"instances_{part}.json").read_text(encoding="utf-8"))
        images = [image for image in found["images"] if image["file_name"] in wanted]
        kept = {image["id"] for image in images}
        classes = {each["id"] for each in found["categories"] if each["name"] in shown}
        content["images"] += [{key: image[key] for key in ("id", "file_name", "width", "height")} for image in images]
        content["annotations"] += [
            each for each in found["annotations"] if each["image_id"] in kept and each["category_id"] in classes
        ]
        content["categories"] = found["categories"]
        for image in images:
            with Image.open(root / part / image["file_name"]) as photo:
                photo.convert("RGB").save(out / "images" / image["file_name"], quality=QUALITY["coco"])
    missing = wanted - {image["file_name"] for image in content["images"]}
    if missing:
        raise SystemExit(f"{len(missing)} of the list are not in {root}, such as {min(missing)}")
    (out / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def reduced(size: tuple[int, int]) -> tuple[int, int]:
    """The size whose longer side has 400 pixels; smaller images stay as they are."""
    factor = min(1.0, LONGER_SIDE / max(size))
    return round(size[0] * factor), round(size[1] * factor)


if __name__ == "__main__":
    main()
