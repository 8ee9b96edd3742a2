"""A training process from its start to its exit status: compiled programs, the other processes, and how it ended."""

import argparse
import faulthandler
import os
import shlex
import sys
from collections.abc import Sequence
from logging import LogRecord

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from gensupcon_jax import command_line, disk, paths, signals
from gensupcon_jax.cluster import cpu_flags, detection, processes
from gensupcon_jax.cluster.stopping import stop_requests
from gensupcon_jax.cluster.watchdog import Limits
from gensupcon_jax.errors import RunStopped, StoppedBetween, UserError
from gensupcon_jax.run import compiled, config_check, recipes
from gensupcon_jax.run.account import Account, process_began
from gensupcon_jax.store import lock, workdir


def start_training(options: argparse.Namespace, command: Sequence[str]) -> None:
    """Run the training that `main.parse` read, and exit with a message and a status if it does not finish.

    Each mistake of the user is printed as a line, with status 1. command: what was typed, for the report. What it says may be
    read by nobody any more; its files have it too.
    """
    with command_line.unread_output_dropped():
        _start_training(options, shlex.join(command))


def _start_training(options: argparse.Namespace, command: str) -> None:
    try:
        _train(options, command)
    except UserError as error:
        lines = str(error).splitlines()
        processes.leave(1, "\n".join(f"error: {line}" for line in lines), reason=lines[0])
    except RunStopped as stopped:
        processes.leave(
            options.stopped_status,
            str(stopped),
            reason=processes.STOPPED,
            at_once=isinstance(stopped, StoppedBetween),
        )
    except SystemExit as done:
        # An exit that bypasses `processes.leave` would leave the other processes waiting.
        if processes.is_waited_for():
            processes.leave(
                done.code if isinstance(done.code, int) and done.code else processes.LOST, "", reason="it left early"
            )
        raise
    except KeyboardInterrupt:
        processes.leave(1, f"\n{signals.INTERRUPTED}", reason=processes.INTERRUPTED, at_once=True)
    except Exception as error:
        line = disk.line_of(error)
        if line is None:
            processes.leave_after_crash(error)
        processes.leave(1, f"error: {line}", reason=line)


def _train(options: argparse.Namespace, command: str) -> None:
    faulthandler.enable(sys.__stderr__ or 2)
    log_with(options.verbosity)
    account = Account(process_began())
    folder = paths.as_path(options.workdir)
    cpu_flags.set_for_this_machine(os.environ)
    keep_compiled_programs(folder)
    compiled.say_failures_once()
    with account.phase("other"):
        join_processes(options)
    with stop_requests(), lock.held(folder, command):  # from here on data are read
        with account.phase("data"):
            options.config = with_choices(options, folder)
        config_check.check_devices(options.config, jax.device_count())  # before the rest of the program is imported
        from gensupcon_jax.run.train import (  # a process that cannot join reports it before this is imported
            Launch,
            train_and_evaluate,
        )

        writers = ("wandb",) if options.wandb else ()
        results = train_and_evaluate(
            options.config,
            folder,
            writers=writers,
            launch=Launch(command, limits_of(options), True, account=account, profile=options.profile),
        )
    from gensupcon_jax.run.summary import summary

    if processes.is_first():
        print(summary(results, folder))
    processes.finish()
    processes.exit_finished()


def limits_of(options: argparse.Namespace) -> Limits:
    """The seconds that each part of the run may take."""
    return Limits(
        step=options.watchdog_seconds,
        evaluation=options.watchdog_evaluation_seconds,
        saving=options.watchdog_saving_seconds,
        report=options.watchdog_report_seconds,
    )


def with_choices(options: argparse.Namespace, folder: paths.Path) -> ConfigDict:
    """The config with what a run on photos chooses by itself, and with the architecture of the weights that --weights names."""
    # Imported here: a process that cannot join reports it before.
    from gensupcon_jax.run import own_photos
    from gensupcon_jax.run.choices import Machine

    config, given = options.config, options.given
    start = own_photos.read_start(options.weights) if options.weights is not None else None
    if recipes.is_of_photos(options.recipe):
        machine = Machine(jax.default_backend(), jax.device_count())
        config, choices = own_photos.choose(config, given, start, machine, folder)
        said = own_photos.choices_table(choices, config.dataset.name, machine)
    elif start is not None:
        config, of_weights = own_photos.with_fields_of(config, given, start)
        said = f"{', '.join(f'{name} {value}' for name, value in of_weights.items())}: as in {start.source}"
    else:
        return config
    if processes.is_first():
        print(said, file=sys.stderr, flush=True)
    return config


def log_with(verbosity: int) -> None:
    """Print absl's log, which orbax and TFDS use, on standard error from this level on."""
    flags.FLAGS(["gensupcon"])  # its own flags, as they are by default
    logging.use_absl_handler()
    logging.set_verbosity(verbosity)
    logging.get_absl_logger().addFilter(is_not_of_orbax_threads)


def is_not_of_orbax_threads(record: LogRecord) -> bool:
    """Orbax logs a traceback in each thread that fails, even after the run has ended; `Checkpoints` raises the error."""
    return not (record.exc_info and "/orbax/" in record.pathname)


def join_processes(options: argparse.Namespace) -> None:
    """Join the other processes, if the options ask for several."""
    explicit = {name: getattr(options, name) for name in ("coordinator_address", "num_processes", "process_id")}
    given = [name for name, value in explicit.items() if value is not None]
    if options.distributed and given:
        raise UserError(
            f"--distributed takes everything from the cluster; leave out either it or --{', --'.join(given)}"
        )
    if given and len(given) < len(explicit):
        missing = [name for name in explicit if name not in given]
        raise UserError(
            f"--{', --'.join(missing)} is missing, with --{', --'.join(given)} given; several processes need all three"
        )
    if options.distributed:
        member = detection.member_of_cluster(os.environ, timeout=options.join_timeout)
        processes.join(member, timeout=options.join_timeout)
    elif given:
        processes.join(processes.Member(**explicit), timeout=options.join_timeout)


def keep_compiled_programs(folder: paths.Path) -> None:
    """Keep XLA's compiled programs in the workdir, so that the next start is quick, also on another machine.

    The user's own cache, JAX_COMPILATION_CACHE_DIR, takes precedence.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / workdir.COMPILED))
    if paths.is_remote(folder):
        # XLA's own cache, for GPUs, supports local folders only: it would create one named "gs:".
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The many small programs of a start take seconds together; on an object store each would be a request.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5 if paths.is_remote(folder) else 0.0)
