"""Folders of images, <path>/<split>/<class>/<image>, listed in sorted order."""

import collections
import concurrent.futures
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from gensupcon_jax import paths
from gensupcon_jax.data.cache import cached, size_and_time
from gensupcon_jax.data.headers import Header, read_header
from gensupcon_jax.data.listing import Listing, headers_as_arrays, headers_from_arrays, with_progress
from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.text import listed, reason

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif")
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test",)}
_LAYOUT = "<path>/<split>/<class>/<image>, split one of train, validation, test; or <path>/<class>/<image>"
_READERS = 16  # threads that wait for the disk


class Found(NamedTuple):
    """The sorted image files of one split, the class of each, and counts of other files by suffix."""

    files: list[str]
    classes: np.ndarray
    empty_classes: list[str]
    others: collections.Counter


def list_folder(
    path: str, *, split_names: dict[str, str | None], cache_folder: paths.Path | None
) -> tuple[dict[str, Listing], tuple[str, ...], list[str], list[str]]:
    """(listings by split, class names, notes for the log, class folders without images) of an image folder.

    split_names: folder names for train, validation, test; None: the usual ones.  Classes are the folders of the training
    split, sorted.  Without split folders, all images are training images.  Raises UserError for folders without images, and for
    classes that training does not have.
    """
    root = epath.Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"dataset.name is 'folder:{path}', which is not a folder; allowed: {_LAYOUT}")
    folders = _split_folders(root, split_names, path)
    names = tuple(sorted(entry.name for entry in folders["train"].iterdir() if _is_class(entry)))
    if len(names) < 2:
        raise UserError(f"dataset.name is 'folder:{path}': {_too_few_classes(folders['train'], names)}")
    found = {split: _find(folder, names, is_train=split == "train") for split, folder in folders.items()}
    listings = {
        split: _listing(folders[split], files, path, split, cache_folder)
        for split, files in found.items()
        if split == "train" or files.files
    }
    if not found["train"].files:
        raise UserError(f"dataset.name is 'folder:{path}': {folders['train']} contains no images; allowed: {_LAYOUT}")
    notes = [
        f"{folders[split]}: {sum(files.others.values())} files are ignored, as they are no images in a class folder "
        f"({', '.join(f'{count} x {suffix}' for suffix, count in files.others.most_common(5))})"
        for split, files in found.items()
        if files.others
    ]
    empty = [str(folders["train"] / name) for name in found["train"].empty_classes]
    return listings, names, notes, empty


def _too_few_classes(folder: epath.Path, names: tuple[str, ...]) -> str:
    if names:
        return (
            f"{folder} contains 1 class folder, {names[0]}; allowed: 2 or more, for something to tell apart: {_LAYOUT}"
        )
    loose = sum(Path(entry.name).suffix.lower() in SUFFIXES for entry in folder.iterdir())
    if not loose:
        return f"{folder} contains no class folders and no images; allowed: {_LAYOUT}"
    return (
        f"{folder} contains {loose} images and no class folders; the classes of the images are needed: put those of each class "
        f"into a folder of its own, {_LAYOUT}"
    )


def _split_folders(root: epath.Path, split_names: dict[str, str | None], path: str) -> dict[str, epath.Path]:
    present = sorted(entry.name for entry in root.iterdir() if _is_class(entry))
    folders = {}
    for split, usual in SPLIT_NAMES.items():
        wanted = split_names[split]
        if wanted is not None and wanted not in present:
            raise UserError(
                f"dataset.{split}_split is {wanted!r}, but {root} contains the folders {', '.join(present) or 'none'}; "
                "allowed: one of them, or None"
            )
        name = wanted or next((name for name in usual if name in present), None)
        if name is not None:
            folders[split] = root / name
    if "train" not in folders:
        if folders:
            raise UserError(
                f"dataset.name is 'folder:{path}' with {', '.join(present)}, but without a train folder; "
                f"allowed: {_LAYOUT}, or set dataset.train_split"
            )
        folders["train"] = root
    return folders


def _is_class(entry: epath.Path) -> bool:
    return not entry.name.startswith(".") and Path(entry.name).suffix.lower() not in SUFFIXES and entry.is_dir()


def _find(folder: epath.Path, names: tuple[str, ...], *, is_train: bool) -> Found:
    numbers = {name: number for number, name in enumerate(names)}
    files, classes, empty, others = [], [], [], collections.Counter()
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not _is_class(entry):
            others[Path(entry.name).suffix or entry.name] += 1
            continue
        if entry.name not in numbers:
            raise UserError(f"{entry} is a class that training does not have; allowed: {listed(names, 8)}")
        images = images_below(entry, others)
        files += images
        classes += [numbers[entry.name]] * len(images)
        if is_train and not images:
            empty.append(entry.name)
    return Found(files, np.array(classes, np.int32), empty, others)


def images_below(folder: epath.Path, others: collections.Counter) -> list[str]:
    """Sorted paths of all image files below a folder; other files are counted by suffix."""
    images = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        suffix = Path(entry.name).suffix
        if suffix.lower() in SUFFIXES:
            images.append(os.fspath(entry))
        elif entry.is_dir():
            images += images_below(entry, others)
        else:
            others[suffix or entry.name] += 1
    return images


def _listing(folder: epath.Path, found: Found, path: str, split: str, cache_folder: paths.Path | None) -> Listing:
    versions = _sizes_and_times(found.files)
    relative = [os.path.relpath(file, folder) if "://" not in file else file for file in found.files]
    # From names and sizes, without reading the content: a file that is added, removed or of another size changes it.
    listed_files = "\n".join(f"{name} {size}" for name, (size, _) in zip(relative, versions, strict=True))
    key = fingerprint([f"{folder} {listed_files} {[changed for _, changed in versions]}"])

    def read_all() -> dict[str, np.ndarray]:
        return headers_as_arrays(read_headers(found.files, f"reading headers of {split}"))

    headers, problems = headers_from_arrays(cached(cache_folder, f"folder_{path}_{split}", key, read_all))
    encoded_paths = np.array([os.fsencode(file) for file in found.files], object)
    return Listing(
        sources_fn=lambda numbers: list(encoded_paths[numbers]),
        where_fn=lambda number: found.files[number],
        are_paths=True,
        classes=found.classes,
        headers=headers,
        problems=problems,
        fingerprint=fingerprint([listed_files]),
        cache_key=key,
    )


def read_headers(files: Sequence[str], text: str) -> list[Header]:
    """The header of each file, read in parallel; text: label of the progress bar."""
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return list(with_progress(pool.map(_read_one, files), len(files), text))


def _sizes_and_times(files: list[str]) -> list[tuple[int, int]]:
    """Size and modification time of each file; zeros on object stores, where each would be a request."""
    if any("://" in file for file in files[:1]):
        return [(0, 0)] * len(files)
    return [size_and_time(Path(file)) for file in files]


def _read_one(file: str) -> Header:
    try:
        with epath.Path(file).open("rb") as opened:
            return read_header(opened)
    except OSError as error:
        return Header(problem=f"the file cannot be read ({reason(error)})")
