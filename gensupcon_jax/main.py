"""The command line: python -m gensupcon_jax.main --config configs/digits.py [--workdir runs/digits] [--config.a.b=c]."""

import os
import shlex
import sys
from pathlib import Path

# Before anything imports TensorFlow: without both, it talks at start-up.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from gensupcon_jax.config_check import RULES, hint
from gensupcon_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, for example configs/digits.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of this run; the same command goes on where it stopped. Default: runs/<name of the config>.",
)


def main(argv: list[str]) -> None:
    """Train and judge the config's encoder, and say where the report is."""
    if argv[1:]:
        raise UserError(f"unknown arguments {' '.join(argv[1:])}; allowed: --config, --workdir, --config.field=value")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells its whole life at INFO
    keep_compiled_programs()
    # After the flags: a wrong one is said within a second, before this brings everything else along.
    from gensupcon_jax.train import train_and_evaluate

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    folder = Path(_WORKDIR.value or Path("runs") / name)
    command = shlex.join(["python", "-m", "gensupcon_jax.main", *sys.argv[1:]])
    print(summary(train_and_evaluate(_CONFIG.value, folder, command=command), folder))


def keep_compiled_programs() -> None:
    """Keep what XLA compiled in the user's cache folder, so that the next start is quick (ours)."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gensupcon_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def summary(results: dict, folder: Path) -> str:
    """The last lines of a run (ours)."""
    lines = [
        f"test accuracy on {results['num_test']} images of {results['dataset']}, seed {results['seed']}:",
        f"  linear probe on frozen features  {results['linear_top1']:6.2f} %",
        f"  k-NN on frozen features          {results['knn_top1']:6.2f} %",
        f"  k-NN on raw pixels (baseline)    {results['raw_pixel_knn_top1']:6.2f} %",
        f"results: {folder / 'results.json'}",
        f"report:  {folder / 'report.html'}",
    ]
    return "\n".join(lines)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parsing, with every mistake as one line (ours)."""
    overrides = dict(arg.removeprefix("--config.").partition("=")[::2] for arg in argv if arg.startswith("--config."))
    for name in overrides:
        if name not in RULES:
            raise UserError(f"{name} is no field of the config{hint(name)}")
    try:
        rest = flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        for name, value in overrides.items():
            if f"--config.{name}={value}" in str(error):
                raise UserError(f"{name} is {value!r}; allowed: {RULES[name](object())}") from error
        raise UserError(str(error)) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if not flags.FLAGS["config"].present:
        raise UserError("--config is missing; for example --config configs/digits.py")
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    if not Path(path).is_file():
        raise UserError(f"--config is {path}, which is no file; for example --config configs/digits.py")
    return rest


def run() -> None:
    """Entry of `python -m gensupcon_jax.main` and of the command `gensupcon-jax`: user mistakes end in one line, status 1."""
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
