"""The listing of image files: their headers, read in parallel and cached, and a fingerprint of their names and sizes."""

import concurrent.futures
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Int

from gensupcon_jax import paths
from gensupcon_jax.data.cache import cached, size_and_time
from gensupcon_jax.data.headers import HEADERS_VERSION, Header, read_header
from gensupcon_jax.data.listing import Listing, headers_as_arrays, headers_from_arrays, with_progress
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.text import reason

_READERS = 16  # threads that wait for the disk


def list_files(
    files: Sequence[str],
    classes: Int[np.ndarray, "example"],
    *,
    names: Sequence[str],
    cache_name: str,
    text: str,
    cache_folder: paths.Path | None,
) -> Listing:
    """The listing of these files.

    names: of the files, relative to what may be moved, for the fingerprint.  text: label of the progress bar.
    """
    versions = _sizes_and_times(files)
    # From names and sizes, without reading the content: a file that is added, removed or of another size changes it.
    listed_files = "\n".join(f"{name} {size}" for name, (size, _) in zip(names, versions, strict=True))
    times = str([changed for _, changed in versions])
    key = fingerprint([f"headers {HEADERS_VERSION}", "\n".join(files), listed_files, times])

    def read_all() -> dict[str, np.ndarray]:
        return headers_as_arrays(read_headers(files, text))

    headers, problems = headers_from_arrays(cached(cache_folder, cache_name, key, read_all))
    encoded_paths = np.array([os.fsencode(file) for file in files], object)
    return Listing(
        sources_fn=lambda numbers: list(encoded_paths[numbers]),
        where_fn=lambda number: in_utf8(str(files[number])),
        are_paths=True,
        classes=classes,
        headers=headers,
        problems=problems,
        fingerprint=fingerprint([listed_files]),
        cache_key=key,
    )


def in_utf8(name: str) -> str:
    """A name whose bytes are not UTF-8, with a question mark in place of each wrong one."""
    return os.fsencode(name).decode("utf-8", "replace")


def read_headers(files: Sequence[str], text: str) -> list[Header]:
    """The header of each file, read in parallel; text: label of the progress bar."""
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return list(with_progress(pool.map(_read_one, files), len(files), text))


def _sizes_and_times(files: Sequence[str]) -> list[tuple[int, int]]:
    """Size and modification time of each file; zeros on object stores, where each would be a request."""
    if any("://" in file for file in files[:1]):
        return [(0, 0)] * len(files)
    return [size_and_time(Path(file)) for file in files]


def _read_one(file: str) -> Header:
    try:
        with epath.Path(file).open("rb") as opened:
            return read_header(opened)
    except OSError as error:
        refuse_lost(error, file)
        return Header(problem=f"the file cannot be read ({reason(error)})")
