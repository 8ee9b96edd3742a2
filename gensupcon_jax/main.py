"""Training from the command line: gensupcon train digits, or python -m gensupcon_jax.main --config configs/digits.py."""

import argparse
import sys

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow

PROGRAM = "python -m gensupcon_jax.main"


def main(arguments: list[str], program: str = PROGRAM) -> None:
    """Train and evaluate the encoder of a recipe, and say where the report is; UserError for a wrong argument."""
    quiet_tensorflow()
    options = parse(arguments, program)
    # After the arguments: a wrong one is said before jax is imported, a wrong value before the data and the rest are.
    from gensupcon_jax.run.config_check import check_config

    check_config(options.config)
    from gensupcon_jax.run import start

    start.start_training(options, [*program.split(), *arguments])


def parse(arguments: list[str], program: str = PROGRAM) -> argparse.Namespace:
    """The options, with `config` and `recipe` of `recipes.parse_with_recipe`; UserError for a wrong one."""
    from gensupcon_jax.run import recipes

    options = recipes.parse_with_recipe(build_parser(program), arguments)
    default = recipes.default_workdir(options.recipe)
    if options.workdir is not None and not options.workdir.strip():
        raise UserError(
            f"--workdir is {options.workdir!r}; allowed: the path of a folder, or leave it out for {default}"
        )
    options.workdir = options.workdir or str(default)
    return options


def build_parser(program: str) -> command_line.Parser:
    """What training takes."""
    from gensupcon_jax.run import recipes

    parser = command_line.Parser(
        program, "Train an encoder with a recipe, evaluate its frozen features, and write a report."
    )
    recipes.add_flags(parser)
    parser.add_argument(
        "--workdir",
        metavar="FOLDER",
        help="folder of this run; the same command resumes where it stopped (default: runs/<name of the recipe>)",
    )
    several = parser.add_argument_group("several processes as one run")
    several.add_argument(
        "--coordinator_address", metavar="HOST:PORT", help="of process 0; every process gets the same one"
    )
    several.add_argument(
        "--num_processes", metavar="N", type=command_line.whole_number(1), help="how many processes in all"
    )
    several.add_argument(
        "--process_id", metavar="N", type=command_line.whole_number(0), help="which one this is, from 0"
    )
    command_line.add_switch(several, "distributed", "take all three from the cluster: TPU pod, SLURM, GKE, Open MPI")
    several.add_argument(
        "--join_timeout",
        metavar="SECONDS",
        type=command_line.number_from(1),
        default=50.0,
        help="until all processes must have come (default: %(default)g)",
    )
    ending = parser.add_argument_group("end of the run, and what it says")
    command_line.add_switch(ending, "wandb", "also log to Weights & Biases, where the package wandb is installed")
    ending.add_argument(
        "--stopped_status",
        metavar="N",
        type=command_line.whole_number(0, 255),
        default=0,
        help="exit status of a run that a signal ended early, for schedulers that start it again (default: %(default)d)",
    )
    ending.add_argument(
        "--watchdog_seconds",
        metavar="SECONDS",
        type=command_line.number_from(0),
        default=1800.0,
        help="a step may take so long before the run says where it hangs, and ends; 0: any time (default: %(default)g)",
    )
    ending.add_argument(
        "--verbosity",
        metavar="N",
        type=command_line.whole_number(-3),
        default=-1,
        help="of absl's log: -1 warnings, 0 information, 1 debugging (default: %(default)d)",
    )
    return parser


def run() -> None:
    """Entry of `python -m gensupcon_jax.main`: a mistake in the arguments is one line, status 1."""
    try:
        main(sys.argv[1:])
    except (UserError, KeyboardInterrupt) as error:
        command_line.end(error)


if __name__ == "__main__":
    run()
