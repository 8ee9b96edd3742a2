"""Weights files: reads and writes .safetensors, reads PyTorch's .pth, .pth.tar, .pt and .bin; pickled code is never run."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from gensupcon_jax import paths
from gensupcon_jax.disk import not_written, refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.text import listed
from gensupcon_jax.weights.names import Named, unwrapped

SAFETENSORS, TORCH = ".safetensors", (".pth.tar", ".pth", ".pt", ".bin")
FORMATS = (SAFETENSORS, *TORCH)
_STATE_DICTS = ("model", "state_dict")  # where a checkpoint keeps the weights
_DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}  # of safetensors


class WeightsFile(NamedTuple):
    """The tensors of a file, and a sentence about what was chosen in it, "" where there was no choice."""

    named: Named
    note: str


def read_file(path: str | Path) -> Named:
    """The tensors of a weights file, see `read_weights_file`."""
    return read_weights_file(path).named


def read_weights_file(path: str | Path) -> WeightsFile:
    """The tensors of a .safetensors file, or of PyTorch's state dict in a .pth, .pth.tar, .pt or .bin file.

    path: of a checkpoint with several state dicts, those under "model" or "state_dict" are taken; FILE#state_dict_ema takes
    another one. Prefixes of wrappers are removed (`names.strip_wrapper`); 16-bit floats become float32. UserError for files
    that are missing, damaged, of another kind, that contain NaN or infinity, or that need PyTorch if it is not installed.
    Pickled code is never run (weights_only).
    """
    file, entry = paths.split_entry(path)
    if format_of(file) is None:
        found = "is not a weights file" if file.exists() else "does not exist"
        raise UserError(f"{file} {found}; allowed: {', '.join(FORMATS)}")
    if not file.is_file():
        raise UserError(f"{file} does not exist; give the path of a {format_of(file)} file")
    if format_of(file) == SAFETENSORS:
        if entry:
            raise UserError(f"{path}: a {SAFETENSORS} file has no entries; leave out #{entry}")
        tensors, notes = _read_safetensors(file), []
    else:
        tensors, notes = _read_torch(file, entry)
    named, left_out = unwrapped(tensors, where=file)
    if left_out:
        notes.append(f"{len(left_out)} tensors beside the network are left out ({listed(left_out, most=3)})")
    _refuse_not_finite(named, file)
    return WeightsFile(named, f"{file}: {'; '.join(notes)}" if notes else "")


def format_of(path: Path) -> str | None:
    """The ending that says the format of a weights file, None for another file."""
    return next((ending for ending in FORMATS if path.name.endswith(ending)), None)


def _read_safetensors(path: Path) -> Named:
    try:
        with paths.local_file(path) as local, safetensors.safe_open(local, framework="numpy") as tensors:
            names = list(tensors.keys())
            for name in names:
                _check_dtype(tensors.get_slice(name).get_dtype(), name, path)
            named = {name: np.asarray(tensors.get_tensor(name)) for name in names}
    except (safetensors.SafetensorError, *paths.failures()) as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({error}); copy or convert it again") from error
    return {name: _full_precision(value) for name, value in named.items()}


def _check_dtype(dtype: str, name: str, path: Path) -> None:
    """UserError for quantized tensors: they mean nothing without their scales, which each program keeps in its own way."""
    if dtype not in _DTYPES:
        raise UserError(
            f"{path}: tensor {name} is {dtype}; allowed: floating-point weights of 16, 32 or 64 bits; convert the file with the "
            "program that wrote it, which knows the scales"
        )


def _full_precision(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value


def _refuse_not_finite(named: Named, path: Path) -> None:
    bad = {
        name: int(np.sum(~np.isfinite(value)))
        for name, value in named.items()
        if jnp.issubdtype(value.dtype, jnp.floating) and not np.isfinite(value).all()
    }
    if bad:
        name = next(iter(bad))
        others = f", and so have {len(bad) - 1} other tensors" if len(bad) > 1 else ""
        raise UserError(
            f"{path}: tensor {name} has {bad[name]} of {named[name].size} values that are NaN or infinite{others}; "
            "the training that wrote it diverged, or the file is damaged: choose another file"
        )


def _read_torch(path: Path, entry: str | None) -> tuple[Named, list[str]]:
    instead = path.name.removesuffix(format_of(path) or "") + SAFETENSORS
    try:
        import torch  # pyright: ignore[reportMissingImports]  (only .pth files need it)
    except ImportError as error:
        raise UserError(
            f"reading {path} needs PyTorch, which is not installed; where it is, write the file's state dict to "
            f"{instead} with safetensors.torch.save_file(state_dict, name), and use that"
        ) from error
    try:
        # SupContrast saves its command-line options, an argparse.Namespace of plain values, with the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), paths.local_file(path) as local:
            content = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # Without its message: torch recommends to run the content of the file.
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or contains pickled objects besides tensors, which "
            f"are not run; write its state dict to {instead}, and use that"
        ) from error
    tensors, notes = _state_dict(content, path, entry)
    for name, value in tensors.items():
        if value.is_floating_point() and value.element_size() == 1:
            _check_dtype(str(value.dtype).removeprefix("torch."), name, path)
    named = {
        name: (value.detach().float() if value.is_floating_point() else value.detach()).numpy()
        for name, value in tensors.items()
    }
    return named, notes


def _state_dict(content: Any, path: Path, entry: str | None) -> tuple[Mapping[str, Any], list[str]]:
    """The state dict in the content of a checkpoint, and which of several was taken."""
    inside = {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}
    several = [key for key, value in inside.items() if _is_state_dict(value)]
    if entry is not None and entry not in several:
        raise UserError(
            f"{path}#{entry}: the file has no state dict of this name; "
            + (f"allowed: {', '.join(f'{path}#{key}' for key in several)}" if several else f"leave out #{entry}")
        )
    taken, found = [], content
    for key in [entry] if entry else _STATE_DICTS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            taken, found = [*taken, key], found[key]
    if not _is_state_dict(found):
        seen = (listed(inside) or "nothing") if isinstance(content, Mapping) else type(content).__name__
        offer = f"; {path}#{several[0]} takes {several[0]!r}" if several else ""
        raise UserError(
            f"{path} contains {seen} instead of a state dict; allowed: a state dict, also under 'model' or 'state_dict'{offer}"
        )
    others = [key for key in several if key not in taken]
    if not others:
        return found, []
    return found, [f"the weights under {'.'.join(taken)!r} are taken; {path}#{others[0]} takes {others[0]!r}"]


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(hasattr(each, "numpy") for each in value.values())


def write_safetensors(path: str | Path, named: Named, metadata: Mapping[str, str]) -> None:
    """Write a new .safetensors file; UserError if it exists. Missing folders are created."""
    write_new(as_path(path), safetensors.numpy.save(named, metadata=dict(metadata)))


def write_new(path: Path, content: bytes) -> None:
    """Write a new file; UserError if it exists or cannot be written. Missing folders are created."""
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if paths.is_remote(path):
            path.write_bytes(content)
        else:
            with path.open("xb") as file:
                file.write(content)
    except paths.failures() as error:
        if not paths.is_remote(path) and not isinstance(error, FileExistsError):
            with contextlib.suppress(OSError):  # of a disk that is lost, for which the first error is the reason
                path.unlink(missing_ok=True)  # leave no partial file
        raise not_written(path, error, instead="choose another --output") from error


@contextlib.contextmanager
def set_aside(outputs: Sequence[Path]) -> Iterator[None]:
    """Move what exists out of the way while new outputs are written; it comes back if they fail, else it is removed."""
    aside = {path: path.with_name(f".{path.name}.replaced") for path in outputs if path.exists()}
    for path, other in aside.items():
        path.rename(other)
    try:
        yield
    except BaseException:
        for path in outputs:
            if path.exists():  # also where its folder is a file
                _remove(path)
        for path, other in aside.items():
            other.rename(path)
        raise
    for other in aside.values():
        _remove(other)


def _remove(path: Path) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            inside.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """UserError if the path exists."""
    if path.exists():
        raise UserError(f"{path} already exists and is kept; choose another --output, or replace it with --overwrite")
