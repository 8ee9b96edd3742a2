"""Compiled programs that cannot be kept or read: one line, where jax warns at length of each program."""

import contextlib
import sys
import time
import warnings
from pathlib import Path

import jax

from gensupcon_jax import disk
from gensupcon_jax.store import workdir
from gensupcon_jax.text import one_line

_WRITING, _READING = (f"Error {what} persistent compilation cache entry" for what in ("writing", "reading"))
_JUST_NOW = 10.0  # seconds


def say_failures_once() -> None:
    """From now on the first failure of each kind is a line on standard error, and the run goes on without the cache."""
    shown, said = warnings.showwarning, set()

    def show(message, category, filename, lineno, file=None, line=None):
        text = str(message)
        kind = next((kind for kind in (_WRITING, _READING) if text.startswith(kind)), None)
        if kind is None:
            shown(message, category, filename, lineno, file, line)
            return
        folder = str(jax.config.jax_compilation_cache_dir)  # pyright: ignore[reportAttributeAccessIssue]
        if kind == _WRITING and Path(folder).name == workdir.COMPILED:  # a folder of others is theirs
            _remove_unfinished(Path(folder))
        if kind not in said:
            said.add(kind)
            print(_sentence(kind, folder, text), file=sys.stderr, flush=True)

    warnings.showwarning = show
    warnings.filterwarnings(
        "always", "Error (writing|reading) persistent compilation cache entry"
    )  # each leaves a file


def _sentence(kind: str, folder: str, text: str) -> str:
    error = OSError(one_line(text.partition("': ")[2]))
    what = "compiled programs cannot be kept in" if kind == _WRITING else "compiled programs cannot be read from"
    return f"{what} {folder} ({disk.reason_at(folder, error)}): this run does without, and the next start compiles them again"


def _remove_unfinished(folder: Path) -> None:
    """Remove the file that was being written: jax would read half a program at each start, and never write it again."""
    with contextlib.suppress(OSError):
        newest = max(folder.glob("*-cache"), key=lambda path: path.stat().st_mtime, default=None)
        if newest is not None and time.time() - newest.stat().st_mtime < _JUST_NOW:
            newest.unlink()
