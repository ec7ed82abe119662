"""Text and CSV files of spreadsheets, editors and other systems."""

import os

import pytest

from fewshotseg.data.sources.tables import read_table, read_text

ROWS = [{"id": "1", "name": "café"}, {"id": "2", "name": "dog"}]


def table(tmp_path, content):
    path = tmp_path / "classes.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, ("id", "name"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_write(tmp_path, encoding, end, delimiter):
    lines = [["id", "name"], ["1", "café"], ["2", "dog"], []]
    text = end.join(delimiter.join(fields) for fields in lines)
    assert table(tmp_path, text.encode(encoding)) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        "ID, Name \n1, café\n 2 ,dog\n",
        'id,name,more\n1,"café",\n2,dog,x\n',
        "id,name\n1,café\n\n,\n2,dog\n,,\n",
        'name,id\n"café",1\ndog,2',
    ],
)
def test_what_people_write(tmp_path, text):
    assert [{key: row[key] for key in ("id", "name")} for row in table(tmp_path, text)] == ROWS


def test_values_may_hold_the_delimiter_and_line_breaks(tmp_path):
    assert table(tmp_path, 'id,name\n1,"a, b"\n2,"a\nb"\n')[1]["name"] == "a\nb"
    assert table(tmp_path, "id;name\n1;a, b\n")[0]["name"] == "a, b"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", r"must have the columns id, name, got no text"),
        ("\n1,cat", r"must have the columns id, name, got no text"),
        ("x,y\n1,2\n", r"must have the columns id, name, got x, y"),
        ("id,id,name\n1,2,cat\n", r"must have the columns id, name, got id, id, name"),
        ("id|name\n1|cat\n", r"must have the columns id, name, got id\|name"),
        ("id,name\n1,cat\n2,\n,dog\n", r"2 faults: row 3 must have a value for id and name; row 4 must have a value"),
        ("id,name\n1\n", r"row 2 must have a value for id and name"),
        ("id,name\n1,cat, big\n", r"row 2 has more values than there are columns: \['1', 'cat', ' big'\]"),
        ('id,name\n1,"cat\n2,dog\n', r"row 3 cannot be read: unexpected end of data"),
        ('id,name\n1,"cat"s\n', r"row 2 cannot be read"),
        ("id,name\n1," + "x" * 200_000, r"row 2 cannot be read: field larger than field limit"),
        ("id,name\n1,café\n".encode("cp1252"), r"must be text in UTF-8 or UTF-16, so save it anew as UTF-8"),
        (b"\xff\xfeodd", r"must be text in UTF-8 or UTF-16"),
        ("id,name\n".encode("utf-16-le"), r"must be text in UTF-8 or UTF-16, got one with zero bytes"),
        (b"PK\x03\x04\x00\x00", r"must be text in UTF-8 or UTF-16, got one with zero bytes"),
    ],
)
def test_everything_else_is_refused_in_a_sentence(tmp_path, content, reason):
    with pytest.raises(ValueError, match=rf"classes\.csv .*{reason}") as error:
        table(tmp_path, content)
    assert len(str(error.value)) < 600


def test_many_faults_are_counted(tmp_path):
    with pytest.raises(ValueError, match=r"classes\.csv has 1,000 faults: row 2 .* and 995 more$"):
        table(tmp_path, "id,name\n" + "1,\n" * 1000)


def test_only_ordinary_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no ordinary file"):
        read_text(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone is missing"):
        read_text(tmp_path / "gone")
