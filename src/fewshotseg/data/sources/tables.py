"""Reads text and CSV files of any program."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fewshotseg._checks import name_some, shown
from fewshotseg.data.sources.faults import check_file, faulty_files


def read_text(path: Path) -> str:
    """Read a text file in UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a regular file, or not text in these encodings.
    """
    check_file(path)
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8 or UTF-16, so save it anew as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path} must be text in UTF-8 or UTF-16, got one with zero bytes")
    return text


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file with commas, semicolons or tabs; each must have a value in all of ``columns``.

    Upper and lower case of column names does not matter; blanks around names and values are stripped. Empty rows are
    skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not text, a column is missing, or rows lack values or have too many; it names these rows.
    """
    text = read_text(path)
    headers = {sign: _header(text, sign) for sign in ",;\t"}
    delimiter = next((sign for sign, header in headers.items() if all(header.count(c) == 1 for c in columns)), None)
    if delimiter is None:
        found = max(headers.values(), key=len)
        raise ValueError(f"{path} must have the columns {', '.join(columns)}, got {name_some(found) or 'no text'}")
    header = headers[delimiter]
    rows, faults = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for values in reader:
            if reader.line_num == 1 or not any(value.strip() for value in values):
                continue
            row = dict(zip(header, (value.strip() for value in values), strict=False))
            if any(value.strip() for value in values[len(header) :]):
                faults.append(f"row {reader.line_num} has more values than there are columns: {shown(values)}")
            elif not all(row.get(column) for column in columns):
                faults.append(f"row {reader.line_num} must have a value for {' and '.join(columns)}")
            rows.append(row)
    except csv.Error as error:
        faults.append(f"row {reader.line_num} cannot be read: {error}")
    if faults:
        raise faulty_files(path, faults)
    return rows


def _header(text: str, delimiter: str) -> list[str]:
    first_row = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    return [field.strip().lower() for field in first_row]
