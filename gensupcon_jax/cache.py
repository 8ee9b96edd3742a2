"""What was found out about a data set once, kept in a folder beside the workdir: sizes, labels, statistics."""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def cached(folder: Path | None, name: str, key: str, make_fn: Callable[[], Arrays]) -> Arrays:
    """make_fn's arrays, from the folder where the same key was made before; folder None: nothing is kept (ours).

    name: the beginning of the file's name.  key: all that the arrays follow from.  A file that cannot be read is made again.
    """
    if folder is None:
        return make_fn()
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[-60:]}-{digest}.npz"
    found = _read(path)
    if found is not None:
        return found
    arrays = make_fn()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)
    return arrays


def _read(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError):  # not there, or damaged: it is made again
        return None
