"""The command line of weights: export a run's, show what a file holds.

python -m gensupcon_jax.weights export --workdir runs/x --output x.safetensors   (or x.stablehlo)
python -m gensupcon_jax.weights show x.safetensors
"""

import argparse
import sys

import jax.export

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.weights.export import STABLEHLO, export
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.names import recognize


def show(path: Path) -> str:
    """What a file holds: the naming, then the name, shape and dtype of each tensor; or an artifact's signature."""
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
        raise UserError(f"{path} is not there; give the path of a {path.suffix} file")
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); export it again") from error
    inputs, outputs = (", ".join(str(aval) for aval in avals) for avals in (exported.in_avals, exported.out_avals))
    return f"{path}: jax.export artifact for {', '.join(exported.platforms)}: {inputs} -> {outputs}"


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are UserErrors."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; see python -m gensupcon_jax.weights --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line's arguments; UserError for wrong ones."""
    parser = _Parser(prog="python -m gensupcon_jax.weights", description="Weights of runs and files.")
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="a run's weights (.safetensors) or features function (.stablehlo)")
    exporting.add_argument("--workdir", type=as_path, required=True, help="folder of the run")
    exporting.add_argument("--output", type=as_path, required=True, help="new file: .safetensors or .stablehlo")
    exporting.add_argument("--head", action="store_true", help="also the projection head, as head.* (.safetensors)")
    showing = commands.add_parser("show", help="what a file holds")
    showing.add_argument("file", type=as_path, help=".safetensors, .pth, .pt or .stablehlo")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Do what the command line says; user mistakes end in one line, status 1."""
    try:
        chosen = parse(arguments)
        if chosen.command == "show":
            print(show(chosen.file))
        else:
            print(export(chosen.workdir, chosen.output, head=chosen.head))
    except UserError as error:
        sys.exit(f"error: {error}")
