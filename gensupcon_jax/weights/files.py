"""Weights files: reads and writes .safetensors, reads PyTorch's .pth and .pt; pickled code is never run."""

import argparse
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from gensupcon_jax import paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.text import listed, reason
from gensupcon_jax.weights.names import Named, strip_wrapper

SAFETENSORS, TORCH = ".safetensors", (".pth", ".pt")


def read_file(path: str | Path) -> Named:
    """The tensors of a .safetensors file, or of a .pth / .pt state dict (also under "model" or "state_dict").

    The prefix "module." is removed; 16-bit floats become float32. UserError for files that are missing, damaged, of another
    kind, or that need PyTorch if it is not installed. Pickled code is never run (weights_only).
    """
    path = as_path(path)
    if path.suffix not in (SAFETENSORS, *TORCH):
        raise UserError(f"{path} is not a weights file; allowed: {', '.join((SAFETENSORS, *TORCH))}")
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a {path.suffix} file")
    named = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)
    return {strip_wrapper(name): value for name, value in named.items()}


def _read_safetensors(path: Path) -> Named:
    try:
        with paths.local_file(path) as local, safetensors.safe_open(local, framework="numpy") as tensors:
            named = {name: np.asarray(tensors.get_tensor(name)) for name in tensors.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, *paths.failures()) as error:
        raise UserError(f"{path} cannot be read ({error}); copy or convert it again") from error
    return {name: _full_precision(value) for name, value in named.items()}


def _full_precision(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value


def _read_torch(path: Path) -> Named:
    try:
        import torch  # pyright: ignore[reportMissingImports]  (only .pth files need it)
    except ImportError as error:
        raise UserError(
            f"reading {path} needs PyTorch, which is not installed; where it is, write the file's state dict to "
            f"{path.with_suffix(SAFETENSORS).name} with safetensors.torch.save_file(state_dict, name), and use that"
        ) from error
    try:
        # SupContrast saves its command-line options, an argparse.Namespace of plain values, with the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), paths.local_file(path) as local:
            content = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # Without its message: torch recommends to run the content of the file.
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or contains pickled objects besides tensors, which "
            f"are not run; write its state dict to {path.with_suffix(SAFETENSORS).name}, and use that"
        ) from error
    tensors = _state_dict(content, path)
    return {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()}


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(hasattr(value, "numpy") for value in content.values()):
        found = listed([str(key) for key in content]) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{path} contains {found} instead of a state dict; allowed: a state dict, also under 'model' or 'state_dict'"
        )
    return {name: value.detach() for name, value in content.items()}


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
            path.unlink(missing_ok=True)  # leave no partial file
        raise UserError(f"{path} cannot be written ({reason(error)}); choose another --output") from error


def refuse_existing(path: Path) -> None:
    """UserError if the path exists."""
    if path.exists():
        raise UserError(f"{path} already exists and is not overwritten; remove it, or choose another --output")
