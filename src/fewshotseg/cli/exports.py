"""Results of ``fewshotseg segment`` in the formats of other tools, complete also when a run is taken up again.

What LabelMe and YOLO want is a file for each photograph; COCO's file and the table are put together in the end from
records of the photographs, which lie in a hidden folder.
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
"""The folder of the records, and of notes that files are of this command."""

Row = dict[str, Any]
"""A photograph's line in the table: column to value."""


class Exports(NamedTuple):
    """The exports of a run.

    Attributes:
        out: The folder of the results.
        formats: Which of `FORMATS`.
        names: Of the classes.
    """

    out: Path
    formats: Sequence[str]
    names: Sequence[str]

    @property
    def several(self) -> bool:
        """Whether there are several classes; a file then names the colours of their masks."""
        return len(self.names) > 1

    def paths(self, name: Path) -> list[Path]:
        """Where the files of one photograph lie, whose path in the results is ``name``."""
        places = {
            "labelme": self.out / name.with_name(f"{name.name}.json"),
            "yolo": self.out / "labels" / name.with_name(f"{name.name}.txt"),
        }
        return [path for each, path in places.items() if each in self.formats]

    def shared_paths(self) -> list[Path]:
        """Where the files lie that are about all photographs."""
        places = {"coco": "annotations.json", "yolo": "data.yaml", "csv": "results.csv"}
        shared = [self.out / place for each, place in places.items() if each in self.formats]
        return [*shared, self.out / "labelmap.txt"] if self.several else shared

    def record(self, name: Path) -> Path:
        """Where the record of a photograph lies."""
        return self.out / RECORDS / name.with_name(f"{name.name}.json")

    def mark_of(self, name: Path) -> str | None:
        """The mark of a photograph's record, None if there is none."""
        mark = self._read(name).get("mark")
        return mark if isinstance(mark, str) else None

    def check_own(self, path: Path) -> None:
        """Raise unless a file may be written: it isn't there, or this command wrote it."""
        if os.path.lexists(path) and not self._note(path).exists():
            raise ValueError(f"{path} exists and is no result of this command; take another --out")

    def are_done(self, photo: Path, name: Path, mark: str) -> bool:
        """Whether all files of a photograph are there, younger than it and with its mark."""
        if not self.formats:
            return True
        record = self._read(name)
        fresh = record.get("mark") == mark and self.record(name).stat().st_mtime >= photo.stat().st_mtime
        return fresh and {*self.formats} <= {*record["formats"]} and all(path.is_file() for path in self.paths(name))

    def save(self, photo: Path, name: Path, mark: str, answer: Answer, seconds: float) -> Row:
        """Write the files of a photograph, and its record last; returns its line in the table."""
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
        """Write the files about all photographs.

        Args:
            photos: All that were asked for, and their paths in the results.
            faults: What kept some from being done.
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
                rows = [done[p]["row"] if p in done else {"photo": str(p), "error": faults[p]} for p in photos]
                content = self._table(rows)
            else:
                content = labelmap_text(self.names) if path.name == "labelmap.txt" else yolo_data(self.names)
            self._write(path, content)

    @property
    def suffixes(self) -> list[str]:
        """What the columns of each class end with."""
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
        """The file that says of another that this command writes it."""
        return self.out / RECORDS / f"{path.relative_to(self.out)}.own"

    def _write(self, path: Path, content: str) -> None:
        self._note(path).parent.mkdir(parents=True, exist_ok=True)
        self._note(path).touch()
        write_atomically(path, content.encode("utf-8", "surrogateescape"))
