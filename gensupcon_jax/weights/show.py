"""Prints the content of a weights file or a portable features function."""

import jax.export

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.weights.export import STABLEHLO
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.names import recognize


def show(path: Path) -> str:
    """The content of a file: the naming, then the name, shape and dtype of each tensor; or the signature of an artifact."""
    if path.suffix == STABLEHLO:
        return _show_artifact(path)
    named = read_file(path)
    naming, parts = recognize(named, where=path)
    total = sum(value.size for name, value in named.items() if not name.endswith("num_batches_tracked"))
    lines = [f"{path}: {naming} names; {', '.join(parts)}; {len(named)} tensors, {total:,} numbers"]
    width = max(len(name) for name in named)
    return "\n".join(lines + [f"  {name:{width}}  {value.shape}  {value.dtype}" for name, value in named.items()])


def _show_artifact(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a {path.suffix} file")
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); export it again") from error
    inputs, outputs = (", ".join(str(aval) for aval in avals) for avals in (exported.in_avals, exported.out_avals))
    return f"{path}: jax.export artifact for {', '.join(exported.platforms)}: {inputs} -> {outputs}"
