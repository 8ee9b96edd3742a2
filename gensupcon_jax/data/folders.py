"""Folders of images, <path>/<split>/<class>/<image>, listed in sorted order."""

import collections
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from gensupcon_jax import paths
from gensupcon_jax.data.file_listing import in_utf8, list_files
from gensupcon_jax.data.folder_tree import HIDDEN, SUFFIXES, entries, folders_in, has_images_below, images_below
from gensupcon_jax.data.listing import Listing
from gensupcon_jax.data.splits import NO_CLASS
from gensupcon_jax.errors import UserError
from gensupcon_jax.text import counted, listed

# Names of split folders, compared without regard to case; the first that is there is taken.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}
_LAYOUT = "<path>/<split>/<class>/<image>, split one of train, validation, test; or <path>/<class>/<image>"
# A folder that is called like this, but not exactly as a split, is hardly a class.
_LIKE_A_SPLIT = re.compile(
    r"(train|val|valid|dev|eval|test)(ing|idation)?([-_ .]?(set|split|data|images|\d+))?", re.IGNORECASE
)
_CONVERTIBLE = (
    ".tif",
    ".tiff",
    ".heic",
    ".heif",
    ".avif",
    ".jp2",
    ".jxl",
    ".psd",
    ".svg",
    ".raw",
    ".dng",
    ".nef",
    ".cr2",
)


class Found(NamedTuple):
    """The sorted image files of one split, the class of each, and what else lies there.

    loose: number of images beside the class folders.  others: number of other files by suffix, and of hidden ones.
    """

    files: list[str]
    classes: np.ndarray
    empty_classes: list[str]
    loose: int
    others: collections.Counter


def list_folder(
    path: str, *, split_names: dict[str, str | None], cache_folder: paths.Path | None
) -> tuple[dict[str, Listing], tuple[str, ...], list[str], list[str]]:
    """(listings by split, class names, notes for the log, class folders without images) of an image folder.

    split_names: folder names for train, validation, test; None: the usual ones.  Classes are the folders of the training
    split, sorted.  Without split folders, all images are training images; without class folders none has a label.  Raises
    UserError for folders without images, for classes that training does not have, and for layouts in which folders would be
    taken for classes that are none.
    """
    root = epath.Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"dataset.name is 'folder:{path}', which is not a folder; allowed: {_LAYOUT}")
    folders = _split_folders(root, split_names, path)
    names = tuple(folders_in(folders["train"]))
    if not names and len(folders) == 1 and any(entry.is_image for entry in entries(folders["train"])[0]):
        return _without_labels(folders["train"], path, cache_folder)
    if len(names) < 2:
        raise UserError(f"dataset.name is 'folder:{path}': {_too_few_classes(folders['train'], names)}")
    found = {split: _find(folder, names, split) for split, folder in folders.items()}
    if not found["train"].files:
        problem = no_images(folders["train"], found["train"].others)
        raise UserError(f"dataset.name is 'folder:{path}': {problem}, as {_LAYOUT}")
    _refuse_outer_folder(folders["train"], names, path)
    listings = {
        split: list_files(
            files.files,
            files.classes,
            names=_relative(files.files, folders[split]),
            cache_name=f"folder_{path}_{split}",
            text=f"reading headers of {split}",
            cache_folder=cache_folder,
        )
        for split, files in found.items()
        if split == "train" or files.files
    }
    notes = [note for split, files in found.items() for note in _notes(folders[split], files)]
    notes += _empty_splits(folders, found, split_names)
    notes += _unused(root, folders)
    empty = [str(folders["train"] / name) for name in found["train"].empty_classes]
    return listings, tuple(map(in_utf8, names)), notes, empty


def _without_labels(
    folder: epath.Path, path: str, cache_folder: paths.Path | None
) -> tuple[dict[str, Listing], tuple[str, ...], list[str], list[str]]:
    """The images that lie directly in a folder, as training images without a label."""
    others: collections.Counter = collections.Counter()
    files = images_below(folder, others)
    listing = list_files(
        files,
        np.full(len(files), -1, np.int32),
        names=_relative(files, folder),
        cache_name=f"folder_{path}_train",
        text="reading headers of train",
        cache_folder=cache_folder,
    )
    note = (
        f"{folder} has {len(files)} images and no class folders: no image has a label, and each is similar to its own views "
        f"only. To train with labels, put the images of each class into a folder of its own, {_LAYOUT}"
    )
    found = Found(files, listing.classes, [], 0, others)
    return {"train": listing}, (NO_CLASS,), [note, *_notes(folder, found)], []


def no_images(folder: epath.Path, others: collections.Counter) -> str:
    """What is in a folder without images, what is read, and how to convert the rest."""
    kinds = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5)) or "no files"
    convert = [suffix for suffix in others if suffix.lower() in _CONVERTIBLE]
    how = (
        f"; convert {' and '.join(convert)} files, for example with: find {shlex.quote(str(folder))} -name '*{convert[0]}' "
        "-exec mogrify -format png {} +"
        if convert
        else ""
    )
    return f"{folder} contains no images ({kinds}){how}; allowed: {', '.join(SUFFIXES)} files"


def _too_few_classes(folder: epath.Path, names: tuple[str, ...]) -> str:
    if names:
        return (
            f"{folder} contains 1 class folder, {names[0]}; allowed: 2 or more, for something to tell apart: {_LAYOUT}"
        )
    loose = sum(entry.is_image for entry in entries(folder)[0])
    if not loose:
        return f"{folder} contains no class folders and no images; allowed: {_LAYOUT}"
    return (
        f"{folder} contains {loose} images and no class folders, but there are other splits; allowed: one folder for each class "
        f"in it, {_LAYOUT}"
    )


def _split_folders(root: epath.Path, split_names: dict[str, str | None], path: str) -> dict[str, epath.Path]:
    present = folders_in(root)
    by_lower = {name.lower(): name for name in reversed(present)}
    folders, given = {}, set(split_names.values())
    for split, usual in SPLIT_NAMES.items():
        wanted = split_names[split]
        if wanted is not None and wanted not in present:
            raise UserError(
                f"dataset.{split}_split is {wanted!r}, but {root} contains the folders {', '.join(present) or 'none'}; "
                "allowed: one of them, or None"
            )
        # A folder that the user has named for one split is not taken for another by its usual name.
        found = (by_lower[name] for name in usual if name in by_lower)
        name = wanted or next((name for name in found if name not in given), None)
        if name is not None:
            folders[split] = root / name
    if "train" not in folders:
        like_splits = [name for name in present if _LIKE_A_SPLIT.fullmatch(name)]
        if folders or (like_splits and len(like_splits) == len(present)):
            raise UserError(
                f"dataset.name is 'folder:{path}' with {', '.join(present)}, but without a train folder; "
                f"allowed: {_LAYOUT}, or set dataset.train_split"
            )
        folders["train"] = root
    return folders


def _find(folder: epath.Path, names: tuple[str, ...], split: str) -> Found:
    numbers = {name: number for number, name in enumerate(names)}
    files, classes, empty = [], [], []
    others: collections.Counter = collections.Counter()
    found, num_hidden = entries(folder)
    if num_hidden:
        others[HIDDEN] += num_hidden
    loose = sum(entry.is_image for entry in found)
    class_folders = [entry for entry in found if entry.is_folder]
    others.update(
        Path(entry.name).suffix or entry.name for entry in found if not entry.is_folder and not entry.is_image
    )
    if loose and not class_folders:
        raise UserError(
            f"{folder} contains {loose} images without class folders, and is the {split} split by its name; allowed: one folder "
            "for each class in it, as in train; another name for it; or a list of all images with their labels and splits, "
            "dataset.name=csv:<file>"
        )
    for entry in class_folders:
        if entry.name not in numbers:
            raise UserError(f"{entry.path} is a class that training does not have; allowed: {listed(names, 8)}")
        images = images_below(epath.Path(entry.path), others)
        files += images
        classes += [numbers[entry.name]] * len(images)
        if split == "train" and not images:
            empty.append(entry.name)
    return Found(files, np.array(classes, np.int32), empty, loose, others)


def _refuse_outer_folder(folder: epath.Path, names: tuple[str, ...], path: str) -> None:
    """UserError where no image lies directly in a class folder: then the folders below are more likely the classes."""
    inside = {name: entries(folder / name)[0] for name in names}
    if any(entry.is_image for found in inside.values() for entry in found):
        return
    deeper = {name: [entry.name for entry in found if entry.is_folder] for name, found in inside.items()}
    largest = max(names, key=lambda name: len(deeper[name]))
    raise UserError(
        f"dataset.name is 'folder:{path}': no image lies directly in a folder of {folder}, {largest} contains "
        f"{listed(deeper[largest], 3)}; name the folder whose folders are the classes, such as folder:{folder / largest}, or put "
        "the images of each class directly into its folder"
    )


def refuse_small_classes(listings: dict[str, Listing], names: Sequence[str], *, is_validated: bool = True) -> None:
    """UserError where a class folder has too few images for the splits that are cut from training."""
    missing = [split for split in ("validation", "test") if split not in listings]
    if listings.keys() == {"train", "validation"}:
        missing = ["validation"]  # the one that is there becomes the test split
    if not is_validated:
        missing = [split for split in missing if split != "validation"]
    counts = np.bincount(listings["train"].classes, minlength=len(names))
    small = [(name, count) for name, count in zip(names, counts, strict=True) if 0 < count <= len(missing)]
    if small:
        name, count = small[0]
        more = f", and {len(small) - 1} more folders have as few" if len(small) > 1 else ""
        raise UserError(
            f"the class folder {name} contains {count} image{'s' if count > 1 else ''}{more}; allowed: "
            f"{len(missing) + 1} or more, as {' and '.join(missing)} images are taken out of those; add images, remove the "
            f"folder, or make folders train, {' and '.join(missing)} with the classes in each"
        )


def _notes(folder: epath.Path, found: Found) -> list[str]:
    notes = []
    if found.loose:
        are = "image beside the class folders is" if found.loose == 1 else "images beside the class folders are"
        notes.append(f"{folder}: {found.loose} {are} not used; put them into a class folder")
    others = collections.Counter(found.others)
    num_hidden = others.pop(HIDDEN, 0)
    if others:
        kinds = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5))
        num_others = sum(others.values())
        are_ignored = "file without an image suffix is" if num_others == 1 else "files without an image suffix are"
        notes.append(f"{folder}: {num_others} {are_ignored} ignored ({kinds})")
    if num_hidden:
        are_left_out = "hidden file or folder is" if num_hidden == 1 else "hidden files and folders are"
        notes.append(f"{folder}: {num_hidden} {are_left_out} left out")
    return notes


def _empty_splits(
    folders: dict[str, epath.Path], found: dict[str, Found], split_names: dict[str, str | None]
) -> list[str]:
    """A note for each split folder without images, in place of which images are cut from training; UserError if it is named."""
    empty = [split for split, files in found.items() if not files.files]
    for split in empty:
        if split_names[split] is not None:
            raise UserError(
                f"dataset.{split}_split is {split_names[split]!r}, but {folders[split]} contains no images; allowed: a folder "
                "with images, or None"
            )
    return [f"{folders[split]} contains no images and is not used" for split in empty]


def _unused(root: epath.Path, folders: dict[str, epath.Path]) -> list[str]:
    """A note for each folder beside the splits that contains images, and one for images that lie there."""
    if os.fspath(folders["train"]) == os.fspath(root):
        return []
    used = {folder.name for folder in folders.values()}
    num_loose = sum(entry.is_image for entry in entries(root)[0])
    beside = [f"{root}: {counted(num_loose, 'image')} beside the split folders, used by no split"] if num_loose else []
    return beside + [
        f"{root / name} contains images and is used by no split"
        for name in folders_in(root)
        if name not in used and has_images_below(root / name)
    ]


def _relative(files: list[str], folder: epath.Path) -> list[str]:
    return [os.path.relpath(file, folder) if "://" not in file else file for file in files]
