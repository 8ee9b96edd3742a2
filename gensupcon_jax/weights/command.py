"""The command: gensupcon weights export --workdir runs/x --output x.safetensors (or x.stablehlo), and weights show FILE."""

import os

from gensupcon_jax import command_line


def main(arguments: list[str], program: str) -> None:
    """Run the subcommand of the command line; UserError for a mistake."""
    commands = {
        "export": command_line.Command(_export, "a run's weights (.safetensors) or features function (.stablehlo)"),
        "show": command_line.Command(_show, "the content of a weights file or a features function"),
    }
    command_line.run_named(commands, arguments, program, "Weights of runs and files.")


def _export(arguments: list[str], program: str) -> None:
    parser = command_line.Parser(program, "Write a run's weights (.safetensors) or features function (.stablehlo).")
    parser.add_argument("--workdir", metavar="FOLDER", required=True, help="folder of the run")
    parser.add_argument("--output", metavar="FILE", required=True, help="new file: .safetensors or .stablehlo")
    command_line.add_switch(
        parser, "head", "also write the projection head (.safetensors): head.*, of a ViT projection.*"
    )
    options = parser.parse(arguments)
    # After the arguments: a wrong one is reported before these are imported.
    from gensupcon_jax.cluster import cpu_flags
    from gensupcon_jax.paths import as_path
    from gensupcon_jax.weights.export import export

    cpu_flags.set_for_this_machine(os.environ)
    print(export(as_path(options.workdir), as_path(options.output), head=options.head))


def _show(arguments: list[str], program: str) -> None:
    parser = command_line.Parser(
        program, "Print the content of a file: the naming, then the name, shape and dtype of each tensor."
    )
    parser.add_argument("file", metavar="FILE", help=".safetensors, .pth, .pt or .stablehlo")
    options = parser.parse(arguments)
    from gensupcon_jax.paths import as_path
    from gensupcon_jax.weights.show import show

    print(show(as_path(options.file)))
