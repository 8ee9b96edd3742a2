"""Named arrays kept in a workdir, as an .npz file with a fingerprint: plain numbers, nothing is ever unpickled."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from gensupcon_jax import paths
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.numpy_files import load_arrays
from gensupcon_jax.paths import Path, failures, write_whole
from gensupcon_jax.text import reason

Arrays = dict[str, np.ndarray]
_KIND, _FINGERPRINT = "kind", "fingerprint"


def write_kept(path: Path, kind: str, arrays: Arrays) -> Path | None:
    """Write the arrays, atomically; returns where a different file that was there is now, None if nothing was replaced.

    kind: what they are, with the version of the format ("linear probe 1"); a reader asks for it. Names may contain "/".
    """
    content = kept_content(kind, arrays)
    earlier = path.read_bytes() if paths.exists(path) else None
    if earlier == content:
        return None
    aside = None
    if earlier is not None:
        aside = _free_name(path)
        write_whole(aside, earlier)
    write_whole(path, content)
    return aside


def read_kept(path: Path, kind: str) -> Arrays | None:
    """The arrays of a file of this kind, None without a file; UserError, in one line, for a damaged or foreign one."""
    if not paths.exists(path):
        return None
    try:
        content = io.BytesIO(path.read_bytes())
        if not zipfile.is_zipfile(content):  # NumPy would take it for a pickle
            raise ValueError("it is damaged, or no .npz")
        arrays: Any = load_arrays(content)
        found, sealed = (str(arrays.pop(name)) for name in (_KIND, _FINGERPRINT))
    except (*failures(), ValueError, KeyError) as error:
        refuse_lost(error, path)
        raise UserError(_unusable(path, kind, f"it cannot be read: {reason(error)}")) from error
    if found != kind:
        raise UserError(_unusable(path, kind, f"it holds {found!r}"))
    if sealed != fingerprint(_parts(kind, arrays)):
        raise UserError(_unusable(path, kind, "its content differs from what was saved"))
    return arrays


def _unusable(path: Path, kind: str, problem: str) -> str:
    return f"{path} is not the {kind!r} that a run has kept ({problem}); put back the file of the run, or remove it"


def kept_content(kind: str, arrays: Arrays) -> bytes:
    """The bytes of the file."""
    stream = io.BytesIO()
    seal = {_KIND: np.array(kind), _FINGERPRINT: np.array(fingerprint(_parts(kind, arrays)))}
    named: dict[str, Any] = arrays | seal
    np.savez(stream, **named)
    return stream.getvalue()


def _parts(kind: str, arrays: Arrays) -> Iterator[str | memoryview]:
    yield kind
    for name, array in sorted(arrays.items()):
        yield str((name, array.shape, array.dtype.str))
        yield np.asarray(array, order="C").data


def _free_name(path: Path) -> Path:
    """A name beside the file that nothing has yet: probe_earlier.npz, probe_earlier_again.npz, ..."""
    name = f"{path.stem}_earlier"
    while paths.exists(path.parent / f"{name}{path.suffix}"):
        name += "_again"
    return path.parent / f"{name}{path.suffix}"
