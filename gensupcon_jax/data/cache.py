"""A cache of what is known of a data set: sizes, labels and statistics, beside the workdir; small sets of images, decoded.

A cache is never needed: a damaged file is made again, and a folder that cannot be written is done without; both are said.
"""

import contextlib
import re
import sys
import time
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from gensupcon_jax.data.mapped_arrays import DamagedArrays, MappedArrays, read_mapped, write_mapped
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.paths import LocalPath, Path, failures
from gensupcon_jax.text import reason

Arrays = dict[str, np.ndarray]
_ABANDONED_SECONDS = 3600.0  # a file that is unfinished for so long is of a process that was killed


def cached(folder: Path | None, name: str, key: str, make_fn: Callable[[], Arrays]) -> Arrays:
    """make_fn's arrays, read from the folder if they were made before with the same key; folder None: no cache.

    name: prefix of the file name.  key: everything that the arrays depend on.
    """
    if folder is None:
        return make_fn()
    path = cache_file(folder, name, key)
    found = read_kept_file(path)
    if found is not None:
        return {name: array.copy() for name, array in found.arrays.items()}
    arrays = make_fn()
    keep(path, MappedArrays(arrays, {}))
    return arrays


def cache_file(folder: Path, name: str, key: str) -> Path:
    """The file for a key."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[-60:]}-{fingerprint([key])}.arrays"


def read_kept_file(path: Path) -> MappedArrays | None:
    """What the file holds; None where there is none, or, with a line on standard error, where it cannot be used."""
    try:
        return read_mapped(path) if path.exists() else None
    except DamagedArrays as error:
        _say(f"{path} is damaged ({error}): the data are read again, and it is replaced")
    except failures() as error:
        _say(f"{path} cannot be read ({reason(error)}): the data are read again")
    return None


def keep(path: Path, kept: MappedArrays) -> None:
    """Write the file, or say on standard error that it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        write_mapped(path, kept)
    except failures() as error:
        _say(
            f"the cache {path.parent} cannot be written ({reason(error)}): "
            "this run does without it, and the next start reads the data again"
        )


def size_and_time(file: LocalPath) -> tuple[int, int]:
    """Size in bytes and modification time, for a key; zeros for a file that is not on this machine."""
    try:
        status = file.stat()
    except failures():  # for example a broken link: reading the file reports it
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _remove_abandoned(path: Path) -> None:
    if not isinstance(path, LocalPath):
        return
    for unfinished in path.parent.glob(f".{path.name}.*.unfinished"):
        with contextlib.suppress(OSError):  # another process has removed it
            if time.time() - unfinished.stat().st_mtime > _ABANDONED_SECONDS:
                unfinished.unlink()


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
