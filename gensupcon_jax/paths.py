"""Folders and files of this machine, or of object storage (gs://bucket/folder): read and written alike."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path as LocalPath
from typing import Any

from etils import epath

from gensupcon_jax.errors import UserError

Path = LocalPath | epath.Path  # for annotations; `as_path` makes one


def as_path(path: str | Path) -> Path:
    """What a user typed as a path: of object storage where it starts with gs://, else of this machine.

    Raises UserError for another scheme, and for gs:// without what reads it.
    """
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", str(path))
    if scheme is None:
        return LocalPath(path)
    if scheme[0] != "gs://":
        raise UserError(f"{path} begins with {scheme[0]}; allowed: a path of this machine, or gs://bucket/folder")
    if not _can_reach_google():
        raise UserError(
            f"{path} needs google-cloud-storage, which orbax asks about the bucket, and TensorFlow, which reads it; "
            'install them with: pip install "gensupcon_jax[gcs]"'
        )
    return epath.Path(path)


def _can_reach_google() -> bool:
    try:
        return find_spec("google.cloud.storage") is not None and find_spec("tensorflow") is not None
    except ModuleNotFoundError:  # of google.cloud
        return False


def is_remote(path: Path) -> bool:
    """Whether it is of object storage, where nothing can be appended to or renamed."""
    return not isinstance(path, LocalPath)


def absolute(path: Path) -> Path:
    """Independent of the folder that we are in, as orbax wants it; a gs:// path is so already."""
    return path if is_remote(path) else path.absolute()


def write_whole(path: Path, content: bytes) -> None:
    """The whole file or nothing: an older one stays until the new one is complete."""
    if is_remote(path):
        path.write_bytes(content)  # an object appears whole, when it is closed
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def local_file(path: Path) -> Iterator[LocalPath]:
    """The file on this machine, for libraries that read no other: itself, or a copy for as long as it is needed."""
    if isinstance(path, LocalPath):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = LocalPath(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield copy


def failures() -> tuple[type[Exception], ...]:
    """What reading or writing may raise: OSError, and TensorFlow's own errors where it reaches the object storage."""
    tensorflow: Any = sys.modules.get("tensorflow")
    return (OSError, tensorflow.errors.OpError) if hasattr(tensorflow, "errors") else (OSError,)
