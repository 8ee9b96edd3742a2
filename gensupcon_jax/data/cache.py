"""A cache of what is known of a data set (sizes, labels, statistics), in a folder beside the workdir."""

import io
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.paths import LocalPath, Path, failures, write_whole

Arrays = dict[str, np.ndarray]


def cached(folder: Path | None, name: str, key: str, make_fn: Callable[[], Arrays]) -> Arrays:
    """make_fn's arrays, read from the folder if they were made before with the same key; folder None: no cache.

    name: prefix of the file name.  key: everything that the arrays depend on.  A file that cannot be read is made again.
    """
    if folder is None:
        return make_fn()
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[-60:]}-{fingerprint([key])}.npz"
    found = _read(path)
    if found is not None:
        return found
    arrays = make_fn()
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    content: dict[str, Any] = dict(arrays)
    np.savez(stream, **content)
    write_whole(path, stream.getvalue())
    return arrays


def size_and_time(file: LocalPath) -> tuple[int, int]:
    """Size in bytes and modification time, for a key; zeros for a file that is not on this machine."""
    try:
        status = file.stat()
    except failures():  # for example a broken link: reading the file reports it
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> Arrays | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file)
    except (*failures(), ValueError, zipfile.BadZipFile, EOFError, KeyError):  # not there, or damaged: it is made again
        return None
