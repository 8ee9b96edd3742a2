"""Local paths and paths on object storage (gs://bucket/folder), read and written the same way."""

import contextlib
import errno
import functools
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path as LocalPath
from typing import Any

from etils import epath

from gensupcon_jax import signals
from gensupcon_jax.disk import NotWritten, writing
from gensupcon_jax.errors import UserError

Path = LocalPath | epath.Path  # for annotations; `as_path` makes one


def as_path(path: str | Path) -> Path:
    """The path for a text: on object storage if it starts with gs://, else local.

    Raises UserError for another scheme, and for gs:// if its packages are not installed.
    """
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", str(path))
    if scheme is None:
        return LocalPath(path)
    if scheme[0] != "gs://":
        raise UserError(f"{path} begins with {scheme[0]}; allowed: a local path, or gs://bucket/folder")
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


def split_entry(path: str | Path) -> tuple[Path, str | None]:
    """FILE#ENTRY -> the path of the file, and the entry of a checkpoint with several state dicts, None without "#"."""
    if "#" not in str(path) or as_path(path).exists():
        return as_path(path), None
    file, _, entry = str(path).rpartition("#")
    return as_path(file), entry


def is_remote(path: Path) -> bool:
    """Whether it is on object storage, where files cannot be appended to or renamed."""
    return not isinstance(path, LocalPath)


def absolute(path: Path) -> Path:
    """The absolute path, as orbax requires it; gs:// paths are absolute already."""
    return path if is_remote(path) else path.absolute()


def exists(path: Path) -> bool:
    """Whether the path is there; an OSError where its disk does not say.

    From Python 3.14 on, `path.exists()` is False then: a run would begin anew over the one that it did not see.
    """
    return path.exists() if is_remote(path) else _mode(path) is not None


def is_folder(path: Path) -> bool:
    """`path.is_dir()` likewise."""
    return path.is_dir() if is_remote(path) else stat.S_ISDIR(_mode(path) or 0)


def is_file(path: Path) -> bool:
    """`path.is_file()` likewise."""
    return path.is_file() if is_remote(path) else stat.S_ISREG(_mode(path) or 0)


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode  # noqa: PTH116  (the path's own method is not the same in all versions)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    except ValueError:  # a name that no file can have
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: an older one stays until the new one is complete; NotWritten if it cannot be."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def move(path: Path, new_path: Path) -> None:
    """Rename a file; an object, which cannot be renamed, is copied and removed."""
    with writing(new_path):
        if isinstance(path, LocalPath):
            path.rename(new_path)
            return
        new_path.write_bytes(path.read_bytes())
        path.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[LocalPath]:
    """A local file to write, which replaces `path` atomically when the block ends without an error; NotWritten if it cannot."""
    if not isinstance(path, LocalPath):
        with writing(path), tempfile.TemporaryDirectory() as folder:
            copy = LocalPath(folder) / path.name
            yield copy
            path.write_bytes(copy.read_bytes())  # atomic: an object appears when it is closed
        return
    # The number of a process is not its own in a folder that several machines share.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.unfinished")
    remove_fn = functools.partial(unfinished.unlink, missing_ok=True)
    with writing(path), signals.cleanup(remove_fn):
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            with contextlib.suppress(OSError):  # of a disk that is lost, for which the first error is the reason
                remove_fn()


def make_folder(path: Path) -> None:
    """Make the folder and those above it, unless it exists; NotWritten if that fails."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def local_file(path: Path) -> Iterator[LocalPath]:
    """A local file, for libraries that read no other: the file itself, or a temporary copy."""
    if isinstance(path, LocalPath):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = LocalPath(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield copy


def failures() -> tuple[type[Exception], ...]:
    """The exceptions of reading and writing: OSError, NotWritten, and TensorFlow's errors if it accesses the object storage."""
    tensorflow: Any = sys.modules.get("tensorflow")
    return (OSError, NotWritten, *((tensorflow.errors.OpError,) if hasattr(tensorflow, "errors") else ()))
