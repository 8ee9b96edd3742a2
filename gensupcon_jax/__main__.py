"""The command `gensupcon`, also as python -m gensupcon_jax: a table of commands, each imported when it is used."""

import importlib
import sys
from collections.abc import Callable

from gensupcon_jax import __version__, signals
from gensupcon_jax.errors import StoppedBetween, UserError

# A module and a line of help. It has `main(arguments, program)`, and does not import jax before it has parsed them.
COMMANDS = {
    "train": ("gensupcon_jax.main", "train an encoder with a recipe, evaluate it, write a report"),
    "replay": (
        "gensupcon_jax.run.replay_command",
        "a step that went wrong again, with the place of its first bad value",
    ),
    "plan": ("gensupcon_jax.plan.command", "memory, speed and cost of a recipe on hardware that is not here"),
    "prepare": ("gensupcon_jax.prepare.command", "prepare and check a data set, write a contact sheet"),
    "embed": ("gensupcon_jax.inference.embed", "write the features of images to a file"),
    "predict": (
        "gensupcon_jax.inference.predict",
        "predict the classes of images, and score them where folders are classes",
    ),
    "neighbors": ("gensupcon_jax.inference.neighbors", "the images of a folder that are most similar to a query"),
    "evaluate": ("gensupcon_jax.inference.evaluate", "how good the features of an encoder are on a data set"),
    "compare": ("gensupcon_jax.compare.command", "compare runs: fields, curves, paired tests, spread over seeds"),
    "export": ("gensupcon_jax.weights.export_command", "a run's encoder for other programs: weights, ONNX, timm"),
    "weights": ("gensupcon_jax.weights.command", "show what a file of weights or a workdir holds; export"),
}


def _lazy(module: str) -> Callable[[list[str], str], None]:
    return lambda arguments, program: importlib.import_module(module).main(arguments, program)


def main(arguments: list[str] | None = None, program: str = "gensupcon") -> None:
    """Run the command of the arguments (None: sys.argv); each error is printed in one line, with status 1."""
    if arguments is None:
        arguments = sys.argv[1:]
        signals.own_process(arguments[1:] if arguments[:1] == ["train"] else None)  # before anything else is imported
    from gensupcon_jax import command_line

    commands = {name: command_line.Command(_lazy(module), help) for name, (module, help) in COMMANDS.items()}
    command_line.print_any_text()
    description = "Generalized supervised contrastive learning in JAX."
    try:
        try:
            command_line.run_named(commands, arguments, program, description, version=__version__)
        finally:
            sys.stdout.flush()  # a pipe that is closed is noticed here at the latest
        signals.finished()
    except (UserError, KeyboardInterrupt, OSError) as error:
        command_line.end(error)
    except StoppedBetween as error:
        if signals.owner() is None:
            raise
        signals.stopped(error)


if __name__ == "__main__":
    main()
