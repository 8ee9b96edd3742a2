"""Small data sets of TFDS, decoded once: later starts map their arrays into memory and import neither TFDS nor TensorFlow."""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gensupcon_jax import paths
from gensupcon_jax.data.cache import cache_file, keep, read_kept_file, size_and_time
from gensupcon_jax.data.encoded_sets import Reading
from gensupcon_jax.data.mapped_arrays import MappedArrays
from gensupcon_jax.fingerprints import fingerprint

_IMAGES, _CLASSES = "images", "classes"


class Decoded(NamedTuple):
    """A data set in memory: the names of its classes, and (images, class numbers) of each split.

    source: the folder of the files that it was decoded from.
    """

    class_names: tuple[str, ...]
    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    source: str


def user_folder() -> Path | None:
    """The folder for decoded data sets in the user's cache, $XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "gensupcon_jax" / "data"
    except RuntimeError:  # of Path.home
        return None


def read_decoded(name: str, reading: Reading) -> Decoded | None:
    """The data set as an earlier start decoded it; None where there is none, or where its files have changed since."""
    path = _file(name, reading)
    kept = read_kept_file(path) if path else None
    if kept is None or kept.facts["files"] != _fingerprint_of_files(kept.facts["source"]):
        return None
    arrays = kept.arrays
    splits = {where: (arrays[f"{where} {_IMAGES}"], arrays[f"{where} {_CLASSES}"]) for where in kept.facts["splits"]}
    if sum(images.nbytes for images, _ in splits.values()) > reading.memory_limit * 2**20:
        return None
    return Decoded(tuple(kept.facts["class_names"]), splits, kept.facts["source"])


def keep_decoded(name: str, reading: Reading, decoded: Decoded) -> None:
    """Keep the data set for the next start, unless its files are on an object store, where they may change unseen."""
    path = _file(name, reading)
    if path is None or "://" in decoded.source:
        return
    arrays = {}
    for where, (images, classes) in decoded.splits.items():
        arrays |= {f"{where} {_IMAGES}": images, f"{where} {_CLASSES}": classes}
    facts = {
        "source": decoded.source,
        "files": _fingerprint_of_files(decoded.source),
        "class_names": decoded.class_names,
        "splits": [*decoded.splits],
    }
    keep(path, MappedArrays(arrays, facts))


def _file(name: str, reading: Reading) -> paths.Path | None:
    """Where the data set is kept: one file for what the user names, whatever version TFDS finds for it."""
    if reading.arrays_folder is None:
        return None
    folder = reading.folder and str(Path(reading.folder).expanduser().resolve())
    places = [folder, os.environ.get("TFDS_DATA_DIR"), importlib.metadata.version("tensorflow-datasets")]
    return cache_file(reading.arrays_folder, f"tfds_{name}", json.dumps([name, *places, reading.split_names]))


def _fingerprint_of_files(source: str) -> str:
    """Of the names, sizes and times of all files of a prepared data set, and of the versions beside it."""
    folder = Path(source)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    versions = sorted(each.name for each in folder.parent.iterdir()) if files else []
    return fingerprint([json.dumps([versions, *([file.name, *size_and_time(file)] for file in files)])])
