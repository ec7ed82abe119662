"""The folders of the study, made of small copies of the archives."""

import json

import numpy as np
import pytest
from PIL import Image

import make_folders
from fewshotseg.data import COCO_CLASSES, FolderSource, coco20i


def test_voc(tmp_path, capsys):
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\n")
    for name, size in (("a", (500, 366)), ("b", (90, 60))):
        Image.new("RGB", size, (200, 10, 10)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        mask[:40, :50], mask[40:45] = 15, 255
        Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
    make_folders.main(["voc", str(root), str(tmp_path / "out")])
    assert capsys.readouterr().out == f"2 images in {tmp_path / 'out'}\n"
    source = FolderSource.from_root(tmp_path / "out")
    assert source.class_names[15] == "person"
    assert [tuple(source.load(index)[0].shape[1:]) for index in range(2)] == [(293, 400), (60, 90)]
    assert source.load(1)[1].unique().tolist() == [0, 15, 255]
    assert set(source.class_areas[0]) == {15}


def test_coco(tmp_path):
    root, (base, novel) = tmp_path / "coco", coco20i(3)
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": number, "name": name} for number, name in COCO_CLASSES.items()]
    for part, names in (("train2017", ["1.jpg", "2.jpg"]), ("val2017", ["3.jpg"])):
        (root / part).mkdir()
        images = [{"id": int(name[0]), "file_name": name, "width": 30, "height": 20, "license": 4} for name in names]
        for image in images:
            Image.new("RGB", (30, 20)).save(root / part / image["file_name"])
        annotations = [
            {"id": 10 * image["id"] + place, "image_id": image["id"], "category_id": class_id}
            for image in images
            for place, class_id in enumerate((base[0], novel[0]))
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    (tmp_path / "ids.txt").write_text("1.jpg\n3.jpg\n")
    make_folders.main(["coco", str(root), str(tmp_path / "out"), "--ids", str(tmp_path / "ids.txt")])
    found = json.loads((tmp_path / "out/instances.json").read_text())
    assert [image["id"] for image in found["images"]] == [1, 3]
    assert [each["category_id"] for each in found["annotations"]] == [base[0], base[0]]
    assert found["categories"] == categories
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["1.jpg", "3.jpg"]
    (tmp_path / "ids.txt").write_text("4.jpg\n")
    with pytest.raises(SystemExit, match="1 of the list are not in"):
        make_folders.main(["coco", str(root), str(tmp_path / "out"), "--ids", str(tmp_path / "ids.txt")])


@pytest.mark.parametrize(("name", "count"), [("voc12_trainaug_part", 1144), ("coco_mini", 354)])
def test_lists(name, count):
    names = (make_folders.IDS / f"{name}.txt").read_text().split()
    assert len(names) == len(set(names)) == count
