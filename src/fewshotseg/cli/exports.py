"""Writes results of ``fewshotseg segment`` in the formats of other tools, complete also after an interrupted run.

LabelMe and YOLO take one file for each photograph. The COCO file and the CSV table are written at the end, from records
of all photographs in a hidden folder.
"""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from fewshotseg._io import write_atomically
from fewshotseg.annotations import coco_annotations, coco_content, labelmap_text, to_labelme, to_yolo, yolo_data
from fewshotseg.cli.large import Answer

FORMATS = ("coco", "labelme", "yolo", "csv")
RECORDS = ".fewshotseg"
"""Hidden folder for the records, and for notes of which files this command wrote."""

Row = dict[str, Any]
"""One photograph's row of the table: column -> value."""


class Exports(NamedTuple):
    """The exported files of a run.

    Attributes:
        out: The folder of the results.
        formats: Some of `FORMATS`.
        names: The names of the classes.
    """

    out: Path
    formats: Sequence[str]
    names: Sequence[str]

    @property
    def several(self) -> bool:
        """Whether there are several classes; labelmap.txt then says which colour is which class."""
        return len(self.names) > 1

    def paths(self, name: Path) -> list[Path]:
        """Return the paths of one photograph's files; ``name`` is its path in the folder of results."""
        places = {
            "labelme": self.out / name.with_name(f"{name.name}.json"),
            "yolo": self.out / "labels" / name.with_name(f"{name.name}.txt"),
        }
        return [path for each, path in places.items() if each in self.formats]

    def shared_paths(self) -> list[Path]:
        """Return the paths of the files that describe all photographs."""
        places = {"coco": "annotations.json", "yolo": "data.yaml", "csv": "results.csv"}
        shared = [self.out / place for each, place in places.items() if each in self.formats]
        return [*shared, self.out / "labelmap.txt"] if self.several else shared

    def record(self, name: Path) -> Path:
        """Return the path of a photograph's record."""
        return self.out / RECORDS / name.with_name(f"{name.name}.json")

    def mark_of(self, name: Path) -> str | None:
        """Return the mark in a photograph's record, None without a record."""
        mark = self._read(name).get("mark")
        return mark if isinstance(mark, str) else None

    def check_own(self, path: Path) -> None:
        """Raise unless a file may be written: it does not exist yet, or this command wrote it."""
        if os.path.lexists(path) and not self._note(path).exists():
            raise ValueError(f"{path} exists, and this command did not write it; choose another --out")

    def are_done(self, name: Path, mark: str) -> bool:
        """Whether all files of a photograph exist, and its record is complete and carries the mark."""
        if not self.formats:
            return True
        record = self._read(name)
        wanted = {"row": dict, "formats": list, "size": list} | ({"coco": list} if "coco" in self.formats else {})
        complete = all(isinstance(record.get(entry), kind) for entry, kind in wanted.items())
        return (
            complete
            and record.get("mark") == mark
            and all(each in record["formats"] for each in self.formats)
            and all(path.is_file() for path in self.paths(name))
        )

    def save(self, photo: Path, name: Path, mark: str, answer: Answer, seconds: float) -> Row:
        """Write the files of a photograph, and its record last; returns its row of the table."""
        row = self._row(photo, answer, seconds)
        for path in self.paths(name):
            relative = os.path.relpath(photo, path.parent)
            if path.suffix == ".json":
                content = json.dumps(to_labelme(answer.mask, self.names, relative), indent=1)
            else:
                content = to_yolo(answer.mask, self.names)
            self._write(path, content)
        if self.formats:
            record: dict[str, Any] = {
                "mark": mark,
                "formats": [*self.formats],
                "size": [*answer.mask.shape],
                "row": row,
            }
            if "coco" in self.formats:
                record["coco"] = coco_annotations(answer.mask, self.names)
            write_atomically(self.record(name), json.dumps(record).encode())
        return row

    def finish(self, photos: Mapping[Path, Path], faults: Mapping[Path, str]) -> None:
        """Write the files that describe all photographs.

        Args:
            photos: Each photograph of the run -> its path in the folder of results.
            faults: Each photograph that failed -> why.
        """
        done = {photo: self._read(name) for photo, name in photos.items() if photo not in faults}
        for path in self.shared_paths():
            if path.name == "annotations.json":
                found = [
                    ((photos[photo].parent / photo.name).as_posix(), record["size"], record["coco"])
                    for photo, record in done.items()
                ]
                content = json.dumps(coco_content(found, self.names))
            elif path.name == "results.csv":
                rows = [
                    (done[photo]["row"] if photo in done else {"error": faults[photo]}) | {"photo": str(photo)}
                    for photo in photos
                ]
                content = self._table(rows)
            else:
                content = labelmap_text(self.names) if path.name == "labelmap.txt" else yolo_data(self.names)
            self._write(path, content)

    @property
    def suffixes(self) -> list[str]:
        """The ending of the table's columns for each class."""
        return [f" {name}" for name in self.names] if self.several else [""]

    def _row(self, photo: Path, answer: Answer, seconds: float) -> Row:
        height, width = answer.mask.shape
        row: Row = {"photo": str(photo), "width": width, "height": height, "seconds": round(seconds, 3)}
        for number, suffix in enumerate(self.suffixes, start=1):
            row[f"share{suffix}"] = round(int((answer.mask == number).sum()) / answer.mask.numel(), 6)
            row[f"presence{suffix}"] = round(answer.presence[number - 1], 4)
        return row

    def _table(self, rows: Sequence[Row]) -> str:
        measured = [f"{column}{suffix}" for suffix in self.suffixes for column in ("share", "presence")]
        text = StringIO()
        table = csv.DictWriter(text, ["photo", "width", "height", "seconds", *measured, "error"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return text.getvalue()

    def _read(self, name: Path) -> dict[str, Any]:
        try:
            record = json.loads(self.record(name).read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _note(self, path: Path) -> Path:
        """Return the path of the note that says that this command wrote ``path``."""
        return self.out / RECORDS / f"{path.relative_to(self.out)}.own"

    def _write(self, path: Path, content: str) -> None:
        self._note(path).parent.mkdir(parents=True, exist_ok=True)
        self._note(path).touch()
        write_atomically(path, content.encode("utf-8", "surrogateescape"))
