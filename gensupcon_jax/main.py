"""Training from the command line: gensupcon train digits, or train photos/; or python -m gensupcon_jax.main --config digits."""

import sys

from gensupcon_jax import signals

if __name__ == "__main__":
    signals.own_process(sys.argv[1:])  # before anything else is imported

import argparse

from gensupcon_jax import command_line
from gensupcon_jax.errors import StoppedBetween, UserError
from gensupcon_jax.extras import quiet_tensorflow

PROGRAM = "python -m gensupcon_jax.main"

# Flag -> what is watched, and the seconds that it may take.
_WATCHED = {
    "watchdog_seconds": ("step", 1800.0),
    "watchdog_evaluation_seconds": ("evaluation, in training or at the end,", 21600.0),
    "watchdog_saving_seconds": ("save or restoration", 3600.0),
    "watchdog_report_seconds": ("report", 3600.0),
}


def main(arguments: list[str], program: str = PROGRAM) -> None:
    """Train and evaluate the encoder of a recipe or for a folder of photos; UserError for a wrong argument."""
    quiet_tensorflow()
    options = parse(arguments, program)
    # Imported here: wrong arguments are reported before jax is imported, wrong values before the data are.
    from gensupcon_jax.run.config_check import check_config

    check_config(options.config)
    from gensupcon_jax.run import start

    start.start_training(options, [*program.split(), *arguments])


def parse(arguments: list[str], program: str = PROGRAM) -> argparse.Namespace:
    """The options, with `config` and `recipe` of `recipes.parse_with_recipe`; UserError for a wrong one."""
    from gensupcon_jax.run import recipes

    options = recipes.parse_with_recipe(build_parser(program), arguments)
    default = recipes.default_workdir(options)
    if options.workdir is not None and not options.workdir.strip():
        raise UserError(
            f"--workdir is {options.workdir!r}; allowed: the path of a folder, or leave it out for {default}"
        )
    options.workdir = options.workdir or str(default)
    if options.weights is not None:
        if "model.weights" in options.given:
            raise UserError("both --weights and --config.model.weights are given; leave one of them out")
        options.config.model.weights = options.weights
    return options


def build_parser(program: str) -> command_line.Parser:
    """The parser of the command line of training."""
    from gensupcon_jax.run import recipes
    from gensupcon_jax.run.profiled_steps import wanted_steps

    parser = command_line.Parser(
        program, "Train an encoder with a recipe, evaluate its frozen features, and write a report."
    )
    recipes.add_flags(parser)
    parser.add_argument(
        "--workdir",
        metavar="FOLDER",
        help="folder of this run; the same command resumes the run (default: runs/<name of the recipe>)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|WORKDIR",
        help="weights to start from, as --config.model.weights: the architecture is then that of the weights",
    )
    _add_flags_of_several(parser)
    ending = parser.add_argument_group("logging and end of the run")
    command_line.add_switch(ending, "wandb", "also log to Weights & Biases, where the package wandb is installed")
    ending.add_argument(
        "--profile",
        metavar="STEPS",
        type=wanted_steps,
        help="write a profile of these steps into the workdir: 5 for five steps, 20:25 for the steps 20 to 25",
    )
    ending.add_argument(
        "--stopped_status",
        metavar="N",
        type=command_line.whole_number(0, 255),
        default=0,
        help="exit status of a run that a signal stopped, for schedulers that restart it (default: %(default)d)",
    )
    for name, (what, seconds) in _WATCHED.items():
        ending.add_argument(
            f"--{name}",
            metavar="SECONDS",
            type=command_line.number_from(0),
            default=seconds,
            help=f"a run whose {what} takes longer prints its stacks and exits; 0: no limit (default: %(default)g)",
        )
    ending.add_argument(
        "--verbosity",
        metavar="N",
        type=command_line.whole_number(-3),
        default=-1,
        help="of the log of absl: -1 warnings, 0 information, 1 debugging (default: %(default)d)",
    )
    return parser


def _add_flags_of_several(parser: command_line.Parser) -> None:
    several = parser.add_argument_group("several processes as one run")
    several.add_argument(
        "--coordinator_address", metavar="HOST:PORT", help="address of process 0; the same for every process"
    )
    several.add_argument("--num_processes", metavar="N", type=command_line.whole_number(1), help="number of processes")
    several.add_argument(
        "--process_id", metavar="N", type=command_line.whole_number(0), help="index of this process, from 0"
    )
    command_line.add_switch(several, "distributed", "take all three from the cluster: TPU pod, SLURM, GKE, Open MPI")
    several.add_argument(
        "--join_timeout",
        metavar="SECONDS",
        type=command_line.number_from(1),
        default=50.0,
        help="time to wait for all processes (default: %(default)g)",
    )


def run() -> None:
    """Entry point of `python -m gensupcon_jax.main`: an error is printed in one line, status 1."""
    signals.own_process(sys.argv[1:])
    command_line.print_any_text()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
        signals.finished()
    except (UserError, KeyboardInterrupt, OSError) as error:
        command_line.end(error)
    except StoppedBetween as error:
        signals.stopped(error)


if __name__ == "__main__":
    run()
