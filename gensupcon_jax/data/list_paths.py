"""The paths in a list: relative to its folder or absolute, as people write them, and those that lead nowhere."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Int

from gensupcon_jax.data.list_tables import Table, quoted
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.text import counted, listed, visible


class ListedPaths(NamedTuple):
    """The path of each row's image, and its name: relative to the root where it lies below, the same for the same file.

    column: of the paths.  root: the folder that relative paths start from.
    """

    files: list[str]
    names: list[str]
    column: str
    root: str


def listed_paths(
    table: Table, column: str, used: Bool[np.ndarray, "row"], file: epath.Path, folder: str | None
) -> ListedPaths:
    """The paths in a column of a list; UserError for rows in use that have none.

    file: the list.  folder: that paths are relative to; None: the folder of the list.
    """
    cells = table.texts(column)
    rows = np.flatnonzero(used).tolist()
    empty = [row for row in rows if not cells[row]]
    if empty:
        raise UserError(
            f"{counted(len(empty), 'row')} without a path in column {visible(column)}, first {table.place(empty[0])}; add the "
            "path, or remove the row"
        )
    on_the_web = [row for row in rows if cells[row].startswith(("http://", "https://"))]
    if on_the_web:
        raise UserError(
            f"{table.place(on_the_web[0])} names {quoted(cells[on_the_web[0]])}, an address on the web; allowed: paths of files; "
            "download the images first"
        )
    root = os.fspath(epath.Path(folder).expanduser() if folder else file.parent)
    files = [_path_of(cell, root) for cell in cells]
    start = root if "://" in root else os.path.normpath(Path(root).absolute())
    return ListedPaths(files, [_name_of(each, root, start) for each in files], column, root)


def refuse_missing(found: ListedPaths, rows: Int[np.ndarray, "some"], table: Table, *, skip_damaged: bool) -> None:
    """UserError that names the first files that do not exist; where damaged images may be skipped, only if none exists."""
    files = [found.files[row] for row in rows]
    if any("://" in file for file in files[:1]):
        return  # on an object store each question is a request: reading the headers reports it
    missing = [row for row, file in zip(rows.tolist(), files, strict=True) if not _exists(file)]
    if not missing or (skip_damaged and len(missing) < len(files)):
        return
    cells = table.texts(found.column)
    named = [f"{cells[row]} ({table.place(row)})" for row in missing]
    raise UserError(
        f"{len(missing)} of {counted(len(files), 'image')} {'does' if len(missing) == 1 else 'do'} not exist: {listed(named)}; "
        f"paths are relative to {found.root}, the folder of the list or dataset.folder; correct them, or choose another "
        "column with dataset.path_column"
    )


def _path_of(cell: str, root: str) -> str:
    if "://" in cell:
        return cell
    if cell.startswith("~"):
        cell = _at_home(cell)
    file = _below(root, cell)
    if "\\" in cell and not _exists(file):  # as Windows writes it
        return _below(root, cell.replace("\\", "/"))
    return file


def _below(root: str, cell: str) -> str:
    return cell if cell.startswith("/") else f"{root}/{cell}"


def _at_home(cell: str) -> str:
    try:
        return os.fspath(Path(cell).expanduser())
    except RuntimeError:  # there is no such user
        return cell


def _name_of(file: str, root: str, start: str) -> str:
    """The name of a file, without detours: a/../b.jpg is b.jpg.  start: the root as an absolute path."""
    if "://" in file:
        return file
    whole = os.path.normpath(file if file.startswith("/") else f"{start}/{file.removeprefix(root)}")
    return whole.removeprefix(f"{start}/") if whole.startswith(f"{start}/") else os.path.relpath(whole, start)


def _exists(file: str) -> bool:
    try:
        os.stat(file)  # noqa: PTH116  (a Path takes "a.png/" for a.png)
    except (OSError, ValueError) as error:  # a name that is too long
        refuse_lost(error, file)
        return False
    return True
