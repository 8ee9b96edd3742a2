"""The command line: python -m gensupcon_jax.main --config configs/digits.py [--workdir runs/digits] [--config.a.b=c]."""

import importlib.util
import inspect
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

# Before anything imports TensorFlow: without both, it talks at start-up.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from gensupcon_jax import paths
from gensupcon_jax.cluster import cpu_flags, detection, processes
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.errors import RunStopped, UserError
from gensupcon_jax.run.config_check import hint, refusal
from gensupcon_jax.store.workdir import COMPILED, flatten

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, for example configs/digits.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of this run; the same command goes on where it stopped. Default: runs/<name of the config>.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "Several processes: host:port of process 0; every process gets the same one."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many in all.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", lower_bound=0)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Several processes, taken from the cluster: TPU pod, SLURM, GKE, Open MPI."
)
_STOPPED_STATUS = flags.DEFINE_integer(
    "stopped_status", 0, "Exit status of a run that a signal ended early, for schedulers that start it again.", 0, 255
)
_JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 50.0, "Several processes: seconds until all must have come.", lower_bound=1.0
)
_WATCHDOG = flags.DEFINE_float(
    "watchdog_seconds",
    1800.0,
    "Seconds that a step may take before the run says where it hangs, and ends; 0: any.",
    lower_bound=0.0,
)

_ACCURACIES = {
    "classifier_top1": "classifier of this run",
    "linear_top1": "linear probe on frozen features",
    "knn_top1": "k-NN on frozen features",
    "raw_pixel_knn_top1": "k-NN on raw pixels (baseline)",
}


def main(argv: list[str]) -> None:
    """Train and judge the config's encoder, and say where the report is."""
    if argv[1:]:
        raise UserError(
            f"unknown arguments {' '.join(argv[1:])}; allowed: --config, --workdir, --config.field=value (with =)"
        )
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells its whole life at INFO
    folder = paths.as_path(_WORKDIR.value or default_workdir())
    cpu_flags.set_for_this_machine(os.environ)
    keep_compiled_programs(folder)
    join_processes()
    # After the flags: a wrong one is said within a second, before this brings everything else along.
    from gensupcon_jax.run.train import Launch, train_and_evaluate

    command = shlex.join(["python", "-m", "gensupcon_jax.main", *sys.argv[1:]])
    results = train_and_evaluate(_CONFIG.value, folder, launch=Launch(command, _WATCHDOG.value))
    if processes.is_first():
        print(summary(results, folder))
    processes.finish()


def join_processes() -> None:
    """Become one of several processes, where the flags say so."""
    explicit = {"coordinator_address": _COORDINATOR, "num_processes": _NUM_PROCESSES, "process_id": _PROCESS_ID}
    given = [name for name, flag in explicit.items() if flag.value is not None]
    if _DISTRIBUTED.value and given:
        raise UserError(f"--distributed takes everything from the cluster; leave out it, or --{', --'.join(given)}")
    if given and len(given) < len(explicit):
        missing = [name for name in explicit if name not in given]
        raise UserError(
            f"--{', --'.join(missing)} is missing beside --{', --'.join(given)}; several processes need all three"
        )
    if _DISTRIBUTED.value:
        member = detection.member_of_cluster(os.environ, timeout=_JOIN_TIMEOUT.value)
        processes.join(member, timeout=_JOIN_TIMEOUT.value)
    elif given:
        member = processes.Member(*(flag.value for flag in explicit.values()))
        processes.join(member, timeout=_JOIN_TIMEOUT.value)


def read_recipe(argument: str) -> Any:
    """The ConfigDict of a recipe's `get_config()`, or `get_config(variant)` for `file:variant`, locked.

    Raises UserError with the file, and the line where it is known, for every mistake in it.
    """
    path, colon, variant = argument.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--config is {path or repr(path)}, which is no file; for example --config configs/digits.py")
    arguments = (variant,) if colon else ()
    try:
        get_config = _get_config_of(_load_module(path), path)
        _check_variant(get_config, arguments, path)
        config = get_config(*arguments)
        fields = flatten(config.to_dict()) if hasattr(config, "to_dict") else None
    except UserError:
        raise
    except Exception as error:  # whatever somebody's recipe may raise
        raise UserError(f"{_place(error, path)}: {_reason(error, path)}") from error
    if fields is None:
        raise UserError(
            f"{path}: get_config returned {_one_line(repr(config))[:40]} ({type(config).__name__}); "
            "allowed: the ConfigDict of common.get_config(), changed"
        )
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise UserError(
            f"{path}: get_config leaves out {len(missing)} fields, first {missing[0]}; start from common.get_config()"
        )
    return config.lock()


def _load_module(path: str) -> ModuleType:
    loader = SourceFileLoader("gensupcon_jax_recipe", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module  # a recipe's own classes look their module up
    loader.exec_module(module)
    return module


def _get_config_of(recipe: ModuleType, path: str) -> Callable:
    get_config = getattr(recipe, "get_config", None)
    if not callable(get_config):
        raise UserError(f"{path} has no function get_config; allowed: a recipe like configs/digits.py")
    return get_config


def _check_variant(get_config: Callable, arguments: tuple[str, ...], path: str) -> None:
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        allowed = f"{path}, without a variant" if arguments else f"{path}:<variant>"
        found = "takes no variant" if arguments else "needs a variant"
        raise UserError(
            f"--config is {':'.join((path, *arguments))}, but its get_config {found}; allowed: {allowed}"
        ) from error


def _place(error: Exception, path: str) -> str:
    """configs/mine.py, line 7: the last line of the recipe that the error came through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines and lines[-1] else path


def _reason(error: Exception, path: str) -> str:
    """Type and message in one line, without what `_place` already says."""
    if isinstance(error, SyntaxError) and error.filename == path:
        message = error.msg
    else:
        message = error
        # The str() of a KeyError has quotes around it, and ConfigDict's AttributeErrors hold a KeyError.
        while isinstance(message, Exception) and len(message.args) == 1:
            message = message.args[0]
    return ": ".join(filter(None, (type(error).__name__, _one_line(str(message)))))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def default_workdir() -> Path:
    """The folder of a run of this config that names none."""
    return Path("runs") / _run_name(config_flags.get_config_filename(flags.FLAGS["config"]))


def _run_name(config: str) -> str:
    """configs/cifar10.py:supcon -> cifar10_supcon."""
    path, _, variant = config.partition(":")
    return "_".join(filter(None, (Path(path).stem, variant)))


def keep_compiled_programs(folder: paths.Path) -> None:
    """Keep what XLA compiles in the run's own folder, so that its next start is quick, also on another machine.

    A cache of the user's own, JAX_COMPILATION_CACHE_DIR, is used in place of it.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / COMPILED))
    if paths.is_remote(folder):
        # XLA's own cache, for GPUs, knows only folders of this machine: it would make one that is named "gs:".
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def summary(results: dict, folder: paths.Path) -> str:
    """The last lines of a run."""
    lines = [
        f"test accuracy on {results['num_test']} images of {results['dataset']}, seed {results['seed']}:",
        *(f"  {text:31}  {results[name]:6.2f} %" for name, text in _ACCURACIES.items() if name in results),
        f"results: {folder / 'results.json'}",
        f"report:  {folder / 'report.html'}",
    ]
    return "\n".join(lines)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parsing, with every mistake as one line; --a-flag is --a_flag."""
    flags.FLAGS["config"].parser = _RecipeParser()
    argv = [argv[0], *map(_as_absl_spells_it, argv[1:])]
    given = _overrides(argv)
    for name, _ in given:
        if name not in FIELDS:
            raise UserError(f"{name} is not a field of the config{hint(name)}")
    try:
        rest = flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        raise _wrong_value(error, given) from error
    except flags.UnrecognizedFlagError as error:
        found = UserError(_one_line(str(error)))
        raise (_no_config() if given and not flags.FLAGS["config"].present else found) from error
    except flags.Error as error:
        raise UserError(_one_line(str(error))) from error
    if not flags.FLAGS["config"].present:
        raise _no_config()
    if _WORKDIR.value is not None and not _WORKDIR.value.strip():
        raise UserError(
            f"--workdir is {_WORKDIR.value!r}; allowed: the path of a folder, or leave it out for {default_workdir()}"
        )
    return rest


def _as_absl_spells_it(argument: str) -> str:
    """--a-flag=value -> --a_flag=value where that is a flag; everything else as it is."""
    name, equals, value = argument.partition("=")
    spelled = name.lstrip("-").replace("-", "_")
    is_flag = name.startswith("-") and spelled in flags.FLAGS
    return f"--{spelled}{equals}{value}" if is_flag else argument


class _RecipeParser(flags.ArgumentParser):
    """In place of ml_collections' own, which hides where in a recipe a mistake is."""

    def parse(self, argument: str) -> Any:
        return read_recipe(argument)


def _overrides(argv: list[str]) -> list[tuple[str, str]]:
    """(field, value) of every --config.field=value, -config.field=value, --config.field value and --noconfig.field."""
    found = (re.fullmatch(r"--?(?:no)?config\.([^=]*)(=.*)?", argument, re.DOTALL) for argument in argv)
    return [
        (match[1], match[2][1:] if match[2] else following)
        for match, following in zip(found, [*argv[1:], ""], strict=True)
        if match
    ]


def _wrong_value(error: flags.IllegalFlagValueError, given: list[tuple[str, str]]) -> UserError:
    if isinstance(error.__context__, UserError):  # of the recipe; absl catches every ValueError
        return UserError(str(error.__context__))
    for name, value in given:
        if str(error).startswith(f"flag --config.{name}={value}: "):
            return UserError(f"{name} is {value!r}; allowed: {refusal(name, object())}")
    return UserError(_one_line(str(error)))


def _no_config() -> UserError:
    return UserError("--config is missing; for example --config configs/digits.py")


def run() -> None:
    """Entry of `python -m gensupcon_jax.main` and of the command `gensupcon-jax`: user mistakes end in one line, status 1."""
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        lines = str(error).splitlines()
        processes.leave(1, "\n".join(f"error: {line}" for line in lines), reason=lines[0])
    except RunStopped as stopped:
        processes.leave(_STOPPED_STATUS.value, str(stopped), reason="it was asked to stop")
    except SystemExit as done:
        # Of absl, when all is over; from anywhere else it would leave the other processes waiting.
        if processes.is_waited_for():
            processes.leave(
                done.code if isinstance(done.code, int) and done.code else processes.LOST, "", reason="it left early"
            )
        raise
    except KeyboardInterrupt:
        message = "\ninterrupted; the same command goes on from the newest checkpoint, if there is one"
        processes.leave(1, message, reason="it was interrupted")
    except Exception as error:
        processes.leave_after_crash(error)


if __name__ == "__main__":
    run()
