"""Image files to embed: those below a folder, of a list, or given by their paths; headers are read and damaged ones set apart."""

import collections
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from gensupcon_jax.data.file_listing import read_headers
from gensupcon_jax.data.folder_tree import SUFFIXES, images_below
from gensupcon_jax.data.folders import SPLIT_NAMES, no_images
from gensupcon_jax.data.headers import join_headers
from gensupcon_jax.data.list_forms import list_form_of
from gensupcon_jax.data.lists import list_only_files
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError

AnyPath = str | os.PathLike
_SPLIT_FOLDERS = {name for names in SPLIT_NAMES.values() for name in names}


class ImageFiles(NamedTuple):
    """Image files whose headers are intact, in order.

    names: path of each below its folder, or as it was given.  split: the files, for the input pipeline.  folders: the class
    folder of each, None for one that lies in none; of a list, its label.  grouping: "folder" or "label".
    damaged: (name, reason) of those that cannot be decoded: by their headers, and, after a pass over them, by their content.
    """

    names: tuple[str, ...]
    split: EncodedSplit
    folders: tuple[str | None, ...]
    damaged: list[tuple[str, str]]
    grouping: str = "folder"


def find_images(source: AnyPath | Sequence[AnyPath]) -> ImageFiles:
    """The image files of a folder, at any depth and sorted, of a list (.csv, .parquet), or these files in this order.

    Hidden files in a folder are left out.

    A folder of classes is <folder>/<class>/<image> or <folder>/<split>/<class>/<image>, split one of train, validation, test.
    Raises UserError for a path that does not exist, and for a folder without images.

        found = find_images("photos")
        found.names[0], found.folders[0]  # "cats/001.jpg", "cats"
    """
    if isinstance(source, str | os.PathLike):
        path = epath.Path(source).expanduser()
        form = list_form_of(os.fspath(source))
        if form is not None:
            return _listed(form, os.fspath(source))
        if not path.is_dir():
            return _read([_existing(path)], [os.fspath(source)], [None])
        files = _visible(path)
        names = [_below(file, path) for file in files]
        return _read(files, names, _class_folders(names))
    if not len(source):
        raise UserError("0 image files were given; allowed: a folder with images, or 1 or more files")
    files = [_existing(epath.Path(file).expanduser()) for file in source]
    return _read(files, [os.fspath(file) for file in source], [None] * len(files))


def _listed(form: str, path: str) -> ImageFiles:
    found = list_only_files(form, path)
    labels = [None] * len(found.files) if found.labels is None else [label or None for label in found.labels]
    return _read(found.files, found.names, labels)._replace(grouping="label")


def _visible(folder: epath.Path) -> list[str]:
    others: collections.Counter[str] = collections.Counter()
    files = images_below(folder, others)
    if not files:
        raise UserError(no_images(folder, others))
    return files


def _below(file: str, folder: epath.Path) -> str:
    return epath.Path(file).relative_to(folder).as_posix()


def _existing(path: epath.Path) -> str:
    if not path.is_file():
        if path.is_dir():
            raise UserError(f"{path} is a folder; allowed: one folder alone, or 1 or more files")
        raise UserError(f"{path} does not exist; allowed: a folder with images ({', '.join(SUFFIXES)}), or files")
    return os.fspath(path)


def _class_folders(names: Sequence[str]) -> list[str | None]:
    """The first folder of each name, or the second where the first ones are splits; None for images that lie in none."""
    parts = [name.split("/")[:-1] for name in names]
    depth = 1 if parts and all(len(folders) > 1 and folders[0].lower() in _SPLIT_FOLDERS for folders in parts) else 0
    return [folders[depth] if len(folders) > depth else None for folders in parts]


def _read(files: list[str], names: list[str], folders: Sequence[str | None]) -> ImageFiles:
    headers, problems = join_headers(read_headers(files, "reading headers"))
    intact = np.array([row for row, problem in enumerate(problems) if problem is None], np.int64)
    encoded_paths = np.array([os.fsencode(file) for file in files], object)
    split = EncodedSplit(
        sources_fn=lambda numbers: list(encoded_paths[numbers]),
        where_fn=lambda number: files[number],
        are_paths=True,
        numbers=np.arange(len(files)),
        classes=np.zeros(len(files), np.int32),
        headers=headers,
        num_classes=1,
    )
    return ImageFiles(
        names=tuple(names[row] for row in intact),
        split=split.subset(intact),
        folders=tuple(folders[row] for row in intact),
        damaged=[(name, problem) for name, problem in zip(names, problems, strict=True) if problem],
    )
