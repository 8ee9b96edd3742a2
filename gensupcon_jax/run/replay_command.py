"""The command: gensupcon replay runs/mine --dtype float32 --device cpu."""

import os
import sys

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow
from gensupcon_jax.text import reason

NOT_REPRODUCED = 3  # the status where every value is finite here
_DTYPES = ("float32", "bfloat16")
_DEVICES = ("cpu", "cuda", "rocm", "tpu")


def main(arguments: list[str], program: str) -> None:
    """Compute a step that went wrong again, and print where its first bad value is; UserError for a mistake."""
    quiet_tensorflow()
    options = build_parser(program).parse(arguments)
    from gensupcon_jax import paths

    folder = paths.as_path(options.workdir)
    if not paths.is_folder(folder):
        raise UserError(f"{folder} is not a folder; allowed: the --workdir of a run")
    if options.device is not None:
        os.environ["JAX_PLATFORMS"] = options.device
    if options.device == "cpu" and options.devices is not None:
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(options.devices))
    # After the arguments: a wrong one is reported before jax is imported.
    from gensupcon_jax.cluster import cpu_flags

    cpu_flags.set_for_this_machine(os.environ)
    from gensupcon_jax.run import replay

    if options.device is not None:
        _check_device(options.device)
    replayed = replay.replay(folder, step=options.step, dtype=options.dtype, num_devices=options.devices)
    print(replay.replay_in_words(replayed))
    if not replayed.is_bad:
        sys.stdout.flush()
        sys.exit(NOT_REPRODUCED)


def _check_device(kind: str) -> None:
    """UserError where jax finds no such device."""
    import jax

    try:
        jax.devices()
    except Exception as error:  # of several kinds, one of them without a word
        why = f" ({reason(error)})" if str(error) else ""
        raise UserError(
            f"--device is {kind}, which jax does not find here{why}; allowed: cpu, or a device for which it is installed"
        ) from error


def build_parser(program: str) -> command_line.Parser:
    """The arguments of replay."""
    parser = command_line.Parser(
        program,
        "Compute a step that went wrong again, from what the run has kept in WORKDIR/diverged, and say where its first bad value "
        f"is.\n\nstatus 0: found and named; {NOT_REPRODUCED}: every value is finite here; 1: an error\n\n"
        f"example: {program} runs/mine --dtype float32 --device cpu",
    )
    parser.add_argument(
        "workdir", metavar="WORKDIR", help="the folder of a run that has diverged or has skipped a step"
    )
    parser.add_argument(
        "--step", metavar="N", type=command_line.whole_number(1), help="which of the kept steps (default: the newest)"
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        type=command_line.one_of(*_DTYPES),
        help="float32 or bfloat16 (default: that of the run, then float32 where it is not finite)",
    )
    parser.add_argument(
        "--device",
        metavar="KIND",
        type=command_line.one_of(*_DEVICES),
        help=f"{', '.join(_DEVICES)} (default: what jax finds)",
    )
    parser.add_argument(
        "--devices",
        metavar="N",
        type=command_line.whole_number(1),
        help="number of devices (default: as many as the run had, or as there are and divide the batch)",
    )
    return parser
