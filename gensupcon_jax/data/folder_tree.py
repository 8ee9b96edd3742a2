"""A walk through a folder of images: which entries count, which are hidden, and every image below it once."""

import collections
import os
from pathlib import Path
from typing import NamedTuple

from etils import epath

from gensupcon_jax.disk import refuse_lost

# Of a JPEG file cameras and browsers also write .jpe, .jfif, .pjpeg and .pjp.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".webp", ".bmp", ".gif")
HIDDEN = "hidden"  # the name under which hidden files and folders are counted
# What file managers, archives and network storage leave beside the images; names with a dot in front are hidden too.
_LEFT_BY_OTHERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")


class Entry(NamedTuple):
    """A file or folder: its name, its path, and whether it is a folder."""

    name: str
    path: str
    is_folder: bool

    @property
    def is_image(self) -> bool:
        """Whether it is a file with the suffix of an image."""
        return not self.is_folder and has_image_suffix(self.name)


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as an image's does, in any case."""
    return Path(name).suffix.lower() in SUFFIXES


def entries(folder: epath.Path) -> tuple[list[Entry], int]:
    """The visible entries of a folder, sorted by name, and the number of hidden ones; links are followed."""
    if "://" in os.fspath(folder):
        # On an object store each question is a request, and a name that ends as an image's is one.
        found = [
            Entry(each.name, os.fspath(each), not has_image_suffix(each.name) and each.is_dir())
            for each in folder.iterdir()
        ]
    else:
        with os.scandir(folder) as scanned:
            found = [Entry(each.name, each.path, _is_folder(each)) for each in scanned]
    visible = [entry for entry in found if not is_hidden(entry.name)]
    return sorted(visible), len(found) - len(visible)


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder; a link that leads to itself is a file, which cannot be read."""
    try:
        return entry.is_dir()
    except OSError as error:
        refuse_lost(error, entry.path)
        return False


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: .git, ._photo.jpg, __MACOSX, @eaDir."""
    return name.startswith(".") or name in _LEFT_BY_OTHERS


def folders_in(folder: epath.Path) -> list[str]:
    """Sorted names of the visible folders in a folder."""
    return [entry.name for entry in entries(folder)[0] if entry.is_folder]


def images_below(folder: epath.Path, others: collections.Counter) -> list[str]:
    """Sorted paths of all visible image files below a folder, each once.

    Other files are counted in `others` by suffix, and hidden files and folders as "hidden". A link to a folder that it is in is
    not followed.
    """
    images = []
    found, num_hidden = entries(folder)
    if num_hidden:
        others[HIDDEN] += num_hidden
    for entry in found:
        if entry.is_image:
            images.append(entry.path)
        elif not entry.is_folder:
            others[Path(entry.name).suffix or entry.name] += 1
        elif not _leads_back(entry.path, folder):
            images += images_below(epath.Path(entry.path), others)
    return images


def has_images_below(folder: epath.Path) -> bool:
    """Whether there is an image file at any depth."""
    return bool(images_below(folder, collections.Counter()))


def _leads_back(path: str, folder: epath.Path) -> bool:
    """Whether a folder is a link to this folder, or to one that it is in: following it would never end."""
    if "://" in path or not Path(path).is_symlink():
        return False
    target, here = Path(path).resolve(), Path(folder).resolve()
    return target == here or target in here.parents
