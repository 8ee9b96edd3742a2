"""The command: gensupcon export SOURCE --output X, the same as gensupcon weights export."""

from gensupcon_jax.weights.command import export_command


def main(arguments: list[str], program: str) -> None:
    """Run the command; UserError for a mistake."""
    export_command(arguments, program)
