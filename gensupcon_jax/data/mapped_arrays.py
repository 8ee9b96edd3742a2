"""Files of named arrays with a fingerprint of all their bytes, which are mapped into memory rather than read.

NumPy's .npz cannot be mapped, and its checksums do not cover its own headers.
"""

import json
from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.json_files import parsed
from gensupcon_jax.paths import LocalPath, Path, whole_file

_MARK = b"gensupcon_jax arrays 1\n"
_FINGERPRINT_DIGITS, _LENGTH_DIGITS = 16, 12
_BODY = len(_MARK) + _FINGERPRINT_DIGITS  # from here on the fingerprint covers every byte
_ALIGNED = 64


class MappedArrays(NamedTuple):
    """Named arrays, and facts about them: a JSON object."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class DamagedArrays(Exception):  # noqa: N818  (a file that is damaged)
    """The bytes of a file are not those that were written."""


def write_mapped(path: Path, kept: MappedArrays) -> None:
    """Write the file atomically: an older one stays until the new one is complete."""
    table, place = {}, 0
    for name, array in kept.arrays.items():
        table[name] = {"dtype": array.dtype.str, "shape": array.shape, "start": place}
        place = _aligned(place + array.nbytes)
    header = json.dumps({"arrays": table, "facts": kept.facts}).encode()
    length = f"{len(header):0{_LENGTH_DIGITS}d}".encode()
    parts: list[bytes | memoryview] = [length, header, bytes(_data_start(len(header)) - _header_start() - len(header))]
    for array in kept.arrays.values():
        parts += [np.ascontiguousarray(array).data, bytes(_aligned(array.nbytes) - array.nbytes)]
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        file.write(_MARK + fingerprint(parts).encode())
        for part in parts:
            file.write(part)


def read_mapped(path: Path) -> MappedArrays:
    """The arrays, read-only: mapped from a local file, read from an object store.

    Raises DamagedArrays for a file in which any byte differs from what was written, and the errors of reading.
    """
    if isinstance(path, LocalPath) and path.stat().st_size > _BODY:
        content = np.asarray(np.memmap(path, np.uint8, "r"))
    else:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    mark, found = content[: len(_MARK)].tobytes(), content[len(_MARK) : _BODY].tobytes()
    if mark != _MARK or found != fingerprint([content[_BODY:].data]).encode():
        raise DamagedArrays("its fingerprint does not match its content")
    length = int(content[_BODY : _header_start()].tobytes())
    described = parsed(content[_header_start() : _header_start() + length].tobytes())
    data = content[_data_start(length) :]
    arrays = {name: _view(data, **entry) for name, entry in described["arrays"].items()}
    return MappedArrays(arrays, described["facts"])


def _view(data: np.ndarray, dtype: str, shape: list[int], start: int) -> np.ndarray:
    length = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return data[start : start + length].view(dtype).reshape(shape)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNED) * _ALIGNED


def _header_start() -> int:
    return _BODY + _LENGTH_DIGITS


def _data_start(header_length: int) -> int:
    return _aligned(_header_start() + header_length)
