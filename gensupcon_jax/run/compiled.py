"""Compiled programs that cannot be kept or read: one line, where jax warns at length of each program."""

import contextlib
import glob
import re
import sys
import warnings
import zlib
from pathlib import Path

import jax

from gensupcon_jax import disk
from gensupcon_jax.store import workdir
from gensupcon_jax.text import one_line

_FAILURE = re.compile(
    r"Error (?P<kind>writing|reading) persistent compilation cache entry for '(?P<name>[^']*)': (?P<why>.*)", re.DOTALL
)
_ZLIB = b"\x78"  # the first byte of what jax compresses so


def say_failures_once() -> None:
    """From now on the first failure of each kind is a line on standard error, and the run compiles by itself.

    jax writes a program in place, so that a full disk or a kill leaves a part of it, and never writes it again: each later start
    would try to read it. A damaged program is therefore removed.
    """
    shown, said = warnings.showwarning, set()

    def show(message, category, filename, lineno, file=None, line=None):
        failure = _FAILURE.match(str(message))
        if failure is None:
            shown(message, category, filename, lineno, file, line)
            return
        folder = str(jax.config.jax_compilation_cache_dir)  # pyright: ignore[reportAttributeAccessIssue]
        is_read, error = failure["kind"] == "reading", OSError(one_line(failure["why"]))
        refused = is_read and not disk.is_of_disk(error) and Path(folder).name == workdir.COMPILED
        removed = _remove_damaged(Path(folder), failure["name"], refused=refused)
        sentence = _sentence(folder, error, is_read=is_read, removed=removed)
        if sentence.partition(" (")[0] not in said:
            said.add(sentence.partition(" (")[0])
            print(sentence, file=sys.stderr, flush=True)

    warnings.showwarning = show
    warnings.filterwarnings(
        "always", "Error (writing|reading) persistent compilation cache entry"
    )  # each leaves a file


def _sentence(folder: str, error: OSError, *, is_read: bool, removed: bool) -> str:
    why = disk.reason_at(folder, error)
    if not is_read:
        then = "this run does without, and the next start compiles them again"
        return f"compiled programs cannot be kept in {folder} ({why}): {then}"
    if removed:
        return f"compiled programs in {folder} are damaged ({why}): they are removed, compiled again and kept anew"
    return f"compiled programs cannot be read from {folder} ({why}): they are compiled again"


def _remove_damaged(folder: Path, name: str, *, refused: bool) -> bool:
    """Remove the damaged files of the programs of this name; whether there were any.

    refused: XLA did not take one of them. Where each is whole as a file, all are removed.
    """
    removed = False
    with contextlib.suppress(OSError):  # of a disk that does not answer: nothing is known of the files
        files = list(folder.glob(f"{glob.escape(name)}*-cache"))
        damaged = [path for path in files if not _is_whole(path)]
        for path in damaged or (files if refused else ()):
            path.unlink(missing_ok=True)
            removed = True
    return removed


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    if content[:1] != _ZLIB:
        return bool(content)  # of another compression
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True
