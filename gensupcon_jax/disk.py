"""What cannot be written, why, and what to do, as one line: errors of the system, also inside those of libraries."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gensupcon_jax.errors import UserError
from gensupcon_jax.text import reason

_AGAIN = "start the same command again"
_FULL = {
    errno.ENOSPC: f"free some space and {_AGAIN}",
    errno.EDQUOT: f"free some of your space, or ask for a larger quota, and {_AGAIN}",
    errno.EFBIG: f"raise the limit of the size of a file (ulimit -f), or choose a disk that takes larger ones, and {_AGAIN}",
}
# Of folders that were removed or unmounted, of network folders whose server has another state, of broken disks.
LOST = {
    getattr(errno, name)
    for name in ("ESTALE", "EIO", "ENODEV", "ENXIO", "ENOTCONN", "EREMOTEIO", "ETIMEDOUT", "EHOSTDOWN")
    if hasattr(errno, name)
}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_KNOWN = {code: os.strerror(code) for code in (*_FULL, *LOST, *_REFUSED)}
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class NotWritten(UserError):  # noqa: N818  (a file that is not written)
    """The message names the path, the reason and what to do; `strerror` is the reason alone, as of an OSError."""

    def __init__(self, message: str, strerror: str):
        super().__init__(message)
        self.strerror = strerror


@contextlib.contextmanager
def writing(path: object, *, what: str = "", instead: str = "") -> Iterator[None]:
    """A context that writes a file or a folder: an error of its disk becomes NotWritten, with the words of `not_written`.

    An OSError that names another place passes, as does an error of a library that does not tell one of the system.

        with writing(path):
            path.write_bytes(content)  # out.npz cannot be written (No space left on device; 0 bytes of 6.0 MiB are free); ...
    """
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        if not _is_at(error, path):
            raise
        raise not_written(path, error, what=what, instead=instead) from error


def not_written(path: object, error: BaseException, *, what: str = "", instead: str = "") -> NotWritten:
    """The error for a path that cannot be written.

    what: the path in words, such as "workdir runs/a".  instead: what to do where this path will never do.
    """
    if isinstance(error, NotWritten):
        return error
    why = reason_at(path, error)
    return NotWritten(f"{what or path} cannot be written ({why}); {remedy(error, instead)}", why)


def reason_at(path: object, error: BaseException) -> str:
    """The reason of the system, and the free space where that is it."""
    number = number_of(error)
    why = _KNOWN.get(number or 0) or reason(error)
    free = _free_space(str(path)) if number in _FULL else ""
    return f"{why}; {free}" if free else why


def remedy(error: BaseException, instead: str = "") -> str:
    """What to do: free space, look after the disk, or else what is given."""
    number = number_of(error)
    if number in LOST or (number in _ABSENT and not instead):
        return f"check that its disk or network folder is there, and {_AGAIN}"
    return _FULL.get(number or 0) or instead or "choose a place that you may write"


def number_of(error: BaseException | None) -> int | None:
    """The number of the system's error that this is, or that a library tells in its text; None: it is of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    return next((number for number, words in _KNOWN.items() if words in text), None)


def refuse_lost(error: BaseException, path: object) -> None:
    """UserError where the disk does not answer: nothing is known of the file, which must not be taken for damaged or missing.

    except OSError as error:
        refuse_lost(error, path)
        raise UserError(f"{path} is damaged") from error
    """
    if number_of(error) in LOST - {errno.EIO}:  # that one may be a bad sector, in this file alone
        raise UserError(f"{path} cannot be read ({reason_at(path, error)}); {remedy(error)}") from error


def is_of_disk(error: BaseException) -> bool:
    """Whether a disk that is full, read-only, lost or not the user's is the reason, whatever else happened."""
    return number_of(error) in _KNOWN


def line_of(error: Exception) -> str | None:
    """The line for an error that no part of the program has explained; None where it does not name a place on a disk.

    >>> line_of(OSError(errno.ESTALE, os.strerror(errno.ESTALE), "runs/a/config.json"))
    'runs/a/config.json: Stale file handle; check that its disk or network folder is there, and start the same command again'
    """
    if not isinstance(error, OSError) or error.errno not in _KNOWN or error.filename is None:
        return None
    where = os.fsdecode(error.filename)
    return f"{where}: {reason_at(where, error)}; {remedy(error)}"


def _is_at(error: Exception, path: object) -> bool:
    """Whether it is an error of this place, one beside it, above or below; one that names no place must be of a disk."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str | bytes | os.PathLike):
        return number_of(error) in (*_KNOWN, *_ABSENT) or type(error).__module__.startswith("tensorflow.")
    found, folder = os.path.abspath(os.fsdecode(named)), os.path.dirname(os.path.abspath(str(path)))  # noqa: PTH100, PTH120
    return os.path.commonpath((found, folder)) in (found, folder)


def _free_space(path: str) -> str:
    """ "12.0 KiB of 6.0 MiB are free"; empty where nothing is known, as of object storage."""
    for folder in (Path(path), *Path(path).parents):
        with contextlib.suppress(OSError):
            usage, files = shutil.disk_usage(folder), os.statvfs(folder)
            inodes = (
                f", but none of {files.f_files} inodes, one for each file"
                if files.f_files and not files.f_favail
                else ""
            )
            return f"{_size(usage.free)} of {_size(usage.total)} are free{inodes}"
    return ""


def _size(num_bytes: int) -> str:
    size, unit = float(num_bytes), 0
    while size >= 1024 and unit + 1 < len(_UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{num_bytes} bytes"
