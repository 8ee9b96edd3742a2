"""The commands: gensupcon export SOURCE --output X, and gensupcon weights export | show."""

import os

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError

_FORMATS = ("safetensors", "stablehlo", "onnx", "hub")
_ABOUT_FORMATS = (
    "safetensors (weights), stablehlo or onnx (a function from images to features), hub (a folder for timm)"
)


def main(arguments: list[str], program: str) -> None:
    """Run the subcommand of the command line; UserError for a mistake."""
    commands = {
        "export": command_line.Command(export_command, "a run's encoder in a format of other programs"),
        "show": command_line.Command(_show, "the content of a weights file, a workdir or an exported function"),
    }
    command_line.run_named(commands, arguments, program, "Weights of runs and files.")


def export_command(arguments: list[str], program: str) -> None:
    """Write a run's encoder in one of the formats; the workdir is the first argument or --workdir."""
    parser = command_line.Parser(program, f"Write a run's encoder: {_ABOUT_FORMATS}.")
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="workdir of the run")
    parser.add_argument("--workdir", metavar="FOLDER", help="the same as SOURCE")
    parser.add_argument("--output", metavar="X", required=True, help="new file, or new folder (hub)")
    parser.add_argument(
        "--format",
        type=command_line.one_of(*_FORMATS),
        metavar="FORMAT",
        help=f"{', '.join(_FORMATS)}; default: by the ending of the output",
    )
    parser.add_argument(
        "--step", metavar="STEP", default="last", help="best (on validation), last, or a number; default: last"
    )
    parser.add_argument(
        "--license",
        metavar="NAME",
        default="unknown",
        help="of the model card (hub), such as apache-2.0; default: unknown",
    )
    command_line.add_switch(
        parser, "head", "also write the projection head (safetensors): head.*, of a ViT projection.*"
    )
    command_line.add_switch(parser, "overwrite", "replace the output if it exists (default: it is kept)")
    options = parser.parse(arguments)
    if (options.source is None) == (options.workdir is None):
        found = "is missing" if options.source is None else "is given twice, as SOURCE and as --workdir"
        raise UserError(f"the workdir of the run {found}; allowed: {program} SOURCE --output X")
    # After the arguments: a wrong one is reported before these are imported.
    from gensupcon_jax.cluster import cpu_flags
    from gensupcon_jax.paths import as_path
    from gensupcon_jax.weights.export import Options, export

    cpu_flags.set_for_this_machine(os.environ)
    chosen = Options(options.format, options.step, options.head, options.license, options.overwrite)
    print(
        export(as_path(options.workdir if options.source is None else options.source), as_path(options.output), chosen)
    )


def _show(arguments: list[str], program: str) -> None:
    parser = command_line.Parser(
        program,
        "Print the content: the naming, then the name, shape and dtype of each tensor; or the exported function.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="workdir, .safetensors, .pth, .pth.tar, .pt, .bin, .stablehlo or .onnx"
    )
    parser.add_argument(
        "--step", metavar="STEP", default="last", help="of a workdir: best, last, or a number; default: last"
    )
    options = parser.parse(arguments)
    from gensupcon_jax.cluster import cpu_flags
    from gensupcon_jax.paths import as_path
    from gensupcon_jax.weights.show import show

    cpu_flags.set_for_this_machine(os.environ)
    print(show(as_path(options.file), step=options.step))
