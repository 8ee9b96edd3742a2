"""Tables in files: CSV with any usual delimiter, and Parquet; their cells, and where each row stands in the file."""

import csv
import importlib.util
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import failures
from gensupcon_jax.text import listed, one_line, reason, visible

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# The first bytes of files that are no text, and what to do with them.
_NOT_TEXT = {
    b"PAR1": "a Parquet file; read it with dataset.name=parquet:<file>",
    b"PK\x03\x04": "a zip archive, as a spreadsheet or an .npz is one; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel; save the table as CSV",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"\x1f\x8b": "compressed with gzip; unpack it",
}
_TRUTH = {"true": 1.0, "false": 0.0}
_SHOWN = 40  # letters of a cell in a message

Cells = list[str] | np.ndarray  # texts without blanks at their ends; numbers where a Parquet file has numbers


class Table(NamedTuple):
    """The columns of a file by name, in order; columns without a name are left out.

    places: the line of a CSV file in which each row begins, or the row of a Parquet file, from 1.  unit: "line" or "row".
    how: what was found out about the file, for a note.
    """

    columns: dict[str, Cells]
    places: Int[np.ndarray, "row"]
    unit: str
    how: str

    def texts(self, column: str) -> list[str]:
        """The cells as text; empty where there is nothing."""
        cells = self.columns[column]
        return [_text(cell) for cell in cells.tolist()] if isinstance(cells, np.ndarray) else cells

    def place(self, row: int) -> str:
        """Where a row stands in the file: "line 7"."""
        return f"{self.unit} {self.places[row]}"

    def numbers(self, column: str, needed: str) -> Float[np.ndarray, "row"]:
        """The cells as numbers, NaN where a cell is empty; UserError with `needed` for a cell that is not a finite number."""
        cells = self.columns[column]
        if isinstance(cells, np.ndarray):
            values = cells.astype(np.float64)
            wrong = np.flatnonzero(np.isinf(values))
        else:
            values = np.array([_number(cell) for cell in cells], np.float64)
            wrong = np.flatnonzero(np.isinf(values) | (np.isnan(values) & (np.array(cells, object) != "")))
        if len(wrong):
            row = int(wrong[0])
            more = f", and {len(wrong) - 1} more cells are none" if len(wrong) > 1 else ""
            raise UserError(
                f"{self.place(row)}, column {visible(column)}: {quoted(self.texts(column)[row])} is not a number{more}; {needed}"
            )
        return values


def read_table(path: epath.Path, form: str) -> Table:
    """The table in a file; form: "csv" or "parquet".  UserError, in one line, for a file that is none."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; allowed: a file, or dataset.name=folder:<path> for a folder of images")
    if not path.is_file():
        raise UserError(f"{path} does not exist; allowed: a file with a column of paths and a column of labels")
    table = _read_csv(path) if form == "csv" else _read_parquet(path)
    if not len(table.places):
        columns = listed(table.columns, 8)
        raise UserError(f"{path} has a header ({columns}) and no rows; allowed: a row for each image")
    return table


def quoted(cell: str) -> str:
    """A cell in a message: in quotes, and not longer than a few words."""
    return repr(cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}...")


def _read_csv(path: epath.Path) -> Table:
    text = _text_of(path)
    delimiter, skipped = _delimiter(text)
    # The first line of a spreadsheet's file may name the delimiter: sep=;
    rows = [(line, row) for line, row in _rows(text, delimiter, path) if line > skipped]
    if not rows:
        raise UserError(f"{path} is empty; allowed: a header that names the columns, and a row for each image")
    (_, header), body = rows[0], rows[1:]
    for line, row in body:
        if len(row) != len(header) and (len(row) < len(header) or any(row[len(header) :])):
            raise UserError(
                f"{path}, line {line} has {len(row)} cells, and the header {len(header)} "
                f"({listed(header, 8)}), separated by {_DELIMITERS[delimiter]}; a cell that contains one needs quotes around it"
            )
    _refuse_twice(header, path)
    columns: dict[str, Cells] = {name: [row[place] for _, row in body] for place, name in enumerate(header) if name}
    how = f"{_DELIMITERS[delimiter]} between the cells" if len(header) > 1 else "one column"
    return Table(columns, np.array([line for line, _ in body], np.int64), "line", how)


def _text_of(path: epath.Path) -> str:
    try:
        content = path.read_bytes()
    except failures() as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({reason(error)})") from error
    for start, what in _NOT_TEXT.items():
        if content.startswith(start):
            raise UserError(f"{path} is {what}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        begins = content.rfind(b"\n", 0, error.start) + 1
        around = content[max(begins, error.start - 20) : error.start + 20].split(b"\n")[0].decode("latin-1")
        raise UserError(
            f"{path} is not UTF-8: byte {content[error.start]:#x} in line {line}, near {one_line(around)!r}; save it as UTF-8, "
            "for example with: iconv -f latin1 -t utf-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path} is not text: line {line} contains a zero byte; allowed: a CSV file in UTF-8")
    return text


def _delimiter(text: str) -> tuple[str, int]:
    """The delimiter that divides the header into the most cells, and the number of lines before the header."""
    lines = ((number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip())
    number, header = next(lines, (0, ""))
    stated = re.fullmatch(r"sep=([,;\t|])", header.strip("\n "))
    if stated:
        return stated[1], number
    return max(_DELIMITERS, key=lambda delimiter: _num_cells(header, delimiter)), 0


def _num_cells(header: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=delimiter), []))
    except csv.Error:  # `_rows` says what is wrong
        return 0


def _rows(text: str, delimiter: str, path: epath.Path) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the line in which it begins; cells without blanks at their ends."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t"
    )
    begins = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        what = "a quote is not closed" if "end of data" in str(error) else one_line(error)
        raise UserError(f"{path}, line {begins}: {what}; allowed: a CSV file, with quotes in pairs") from error


def _refuse_twice(header: list[str], path: epath.Path) -> None:
    twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns of the name {quoted(twice[0])}; allowed: a name of its own for each")


def _read_parquet(path: epath.Path) -> Table:
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            f'{path} needs pyarrow, which reads Parquet; install it with: pip install "gensupcon_jax[parquet]"; allowed without '
            "it: csv:<file>"
        )
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(pa.BufferReader(path.read_bytes()))
        found = {name: _parquet_cells(table.column(name)) for name in dict.fromkeys(table.column_names) if name}
    except (*failures(), pa.ArrowException, ValueError, KeyError) as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read as Parquet ({visible(one_line(error)[:120])})") from error
    columns = {name: cells for name, cells in found.items() if cells is not None}
    others = [name for name, cells in found.items() if cells is None]
    how = f"Parquet, whose columns {listed(others)} hold neither text nor numbers" if others else "Parquet"
    return Table(columns, np.arange(1, table.num_rows + 1), "row", how)


def _parquet_cells(column: Any) -> Cells | None:
    """Numbers as an array, NaN for null; else texts, with bars between those of a list; None for a column of other things."""
    import pyarrow.types as types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_floating(kind) or (types.is_integer(kind) and not column.null_count):
        return column.to_numpy()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind) or types.is_integer(kind)):
        return None
    return [_text(cell) for cell in column.to_pylist()]


def _text(cell: Any) -> str:
    if cell is None or cell != cell:  # NaN
        return ""
    if isinstance(cell, list):
        return "|".join(_text(each) for each in cell)
    return str(cell).strip()


def _number(cell: str) -> float:
    """The number in a cell, NaN where it is none; True is 1 and False is 0, as pandas writes them."""
    try:
        return float(_TRUTH.get(cell.lower(), cell))
    except ValueError:
        return np.nan
