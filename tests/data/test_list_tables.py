"""Tables in files: what people and programs write as CSV or Parquet is read, and what is no table is one line."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from etils import epath

from gensupcon_jax.data.list_tables import read_table
from gensupcon_jax.errors import UserError

EXPECTED = {"path": ["a b.jpg", "c.jpg"], "label": ["cat", "dog, small"]}


def read(tmp_path, content, form="csv"):
    file = tmp_path / f"list.{form}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(epath.Path(file), form)


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na b.jpg,cat\nc.jpg,"dog, small"\n',
        'path,label\r\na b.jpg,cat\r\nc.jpg,"dog, small"\r\n',
        'path,label\ra b.jpg,cat\rc.jpg,"dog, small"',
        '\ufeffpath,label\na b.jpg,cat\nc.jpg,"dog, small"',
        '"path","label"\n"a b.jpg","cat"\n"c.jpg","dog, small"',
        "path;label\na b.jpg;cat\nc.jpg;dog, small",
        "path\tlabel\na b.jpg\tcat\nc.jpg\tdog, small",
        "path|label\na b.jpg|cat\nc.jpg|dog, small",
        "sep=;\npath;label\na b.jpg;cat\nc.jpg;dog, small",
        'path, label\n a b.jpg , cat \nc.jpg, "dog, small"\n',
        '\n\npath,label\n\na b.jpg,cat\n,\n  \nc.jpg,"dog, small"\n\n',
        'path,label,\na b.jpg,cat,\nc.jpg,"dog, small",\n',
        ',path,label\n0,a b.jpg,cat\n1,c.jpg,"dog, small"\n',
    ],
    ids=[
        "plain", "windows", "old mac", "byte order mark", "quotes", "semicolons", "tabs", "bars", "excel's sep", "blanks",
        "blank lines", "an empty last column", "the index of pandas",
    ],
)  # fmt: skip
def test_one_table_in_many_ways_of_writing_it(tmp_path, text):
    assert read(tmp_path, text).columns == EXPECTED


def test_rows_are_named_by_the_line_in_which_they_begin(tmp_path):
    table = read(tmp_path, 'path,label\n\na.jpg,"two\nlines"\nb.jpg,dog\n')
    assert [table.place(0), table.place(1)] == ["line 3", "line 5"]
    assert table.texts("label") == ["two\nlines", "dog"]


def test_cells_as_numbers(tmp_path):
    table = read(tmp_path, "path,cat,dog\na.jpg,0.25,True\nb.jpg,,false\nc.jpg,1e-1,1\n")
    assert table.numbers("cat", "").tolist()[::2] == [0.25, 0.1]
    assert np.isnan(table.numbers("cat", "")[1])
    assert table.numbers("dog", "").tolist() == [1, 0, 1]


@pytest.mark.parametrize("cell", ["x", "0,5", "nan", "inf", "1 2", "0x1", "--1"])
def test_a_cell_that_is_no_number_is_named_with_its_line(tmp_path, cell):
    table = read(tmp_path, f"path;cat\na.jpg;1\n\nb.jpg;{cell}\nc.jpg;{cell}\n")
    with pytest.raises(UserError) as error:
        table.numbers("cat", "allowed: 0 or 1")
    assert str(error.value) == (
        f"line 4, column cat: {cell!r} is not a number, and 1 more cells are none; allowed: 0 or 1"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "list.csv is empty; allowed: a header that names the columns, and a row for each image"),
        (b"\n  \n\r\n", "list.csv is empty"),
        (b"path,label\n", r"has a header \(path, label\) and no rows; allowed: a row for each image"),
        (b"path,label\na.jpg\n", r"line 2 has 1 cells, and the header 2 \(path, label\), separated by a comma"),
        (b"path,label\na.jpg,cat\nb.jpg,dog,small\n", "line 3 has 3 cells, and the header 2"),
        (b'path,label\na.jpg,"cat\nb.jpg,dog\n', "line 2: a quote is not closed; allowed: a CSV file, with quotes in pairs"),
        (b'path,label\na.jpg,"cat"s\n', "line 2: ',' expected after '\"'"),
        (b"path,label,label\na,b,c\n", "two columns of the name 'label'"),
        ("path,label\na.jpg,cat\nb.jpg,café\n".encode("latin-1"), "is not UTF-8: byte 0xe9 in line 3, near 'b.jpg,café'"),
        ("path,label\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"PAR1....", "is a Parquet file; read it with dataset.name=parquet:<file>"),
        (b"PK\x03\x04....", "is a zip archive, as a spreadsheet or an .npz is one; save the table as CSV"),
        (b"path,label\na\0.jpg,cat\n", "is not text: line 2 contains a zero byte"),
        (b"path,label\n" + b"a" * 200_000 + b",cat\n", r"line 2: field larger than field limit \(131072\)"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, content)
    assert str(tmp_path / "list.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"none.csv does not exist; allowed: a file with a column of paths"):
        read_table(epath.Path(tmp_path / "none.csv"), "csv")
    with pytest.raises(UserError, match=r"is a folder; allowed: a file, or dataset.name=folder:<path>"):
        read_table(epath.Path(tmp_path), "csv")


def write_parquet(tmp_path, **columns):
    pa.parquet.write_table(pa.table(columns), tmp_path / "list.parquet")
    return read_table(epath.Path(tmp_path / "list.parquet"), "parquet")


def test_a_parquet_table_has_texts_numbers_and_lists(tmp_path):
    table = write_parquet(
        tmp_path,
        path=["a.jpg", "b.jpg", "c.jpg"],
        label=pa.array([3, None, 10]),
        word=pa.array(["x", None, "y"]).dictionary_encode(),
        share=pa.array([0.5, None, 1.0]),
        tags=pa.array([["red", "big"], [], None]),
        whole=[7, 8, 9],
        image=[{"bytes": b"x"}] * 3,
    )
    assert table.texts("path") == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.texts("label") == ["3", "", "10"]
    assert table.texts("word") == ["x", "", "y"]
    assert table.texts("share") == ["0.5", "", "1.0"]
    assert table.texts("tags") == ["red|big", "", ""]
    assert table.texts("whole") == ["7", "8", "9"]
    assert table.numbers("whole", "").tolist() == [7, 8, 9]
    assert "image" not in table.columns
    assert table.how == "Parquet, whose columns image hold neither text nor numbers"
    assert [table.place(0), table.place(2)] == ["row 1", "row 3"]


def test_a_parquet_file_that_is_none_and_one_without_rows(tmp_path):
    for content in (b"", b"path,label\n", b"PAR1" + b"\0" * 40 + b"PAR1"):
        with pytest.raises(UserError, match=r"list.parquet cannot be read as Parquet \(") as error:
            read(tmp_path, content, "parquet")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"has a header \(path\) and no rows"):
        write_parquet(tmp_path, path=pa.array([], pa.string()))
