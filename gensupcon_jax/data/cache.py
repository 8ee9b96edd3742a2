"""What was found out about a data set once, kept in a folder beside the workdir: sizes, labels, statistics."""

import io
import re
import zipfile
from collections.abc import Callable

import numpy as np

from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.paths import Path, failures, write_whole

Arrays = dict[str, np.ndarray]


def cached(folder: Path | None, name: str, key: str, make_fn: Callable[[], Arrays]) -> Arrays:
    """make_fn's arrays, from the folder where the same key was made before; folder None: nothing is kept.

    name: the beginning of the file's name.  key: all that the arrays follow from.  A file that cannot be read is made again.
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
    np.savez(stream, **arrays)
    write_whole(path, stream.getvalue())
    return arrays


def size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change, for a key; zeros for a file that is not on this machine."""
    try:
        status = file.stat()
    except failures():  # for example a link to nothing: whoever reads the file says so
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> Arrays | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file)
    except (*failures(), ValueError, zipfile.BadZipFile, EOFError, KeyError):  # not there, or damaged: it is made again
        return None
