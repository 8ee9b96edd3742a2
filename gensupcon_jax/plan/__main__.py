"""The command line: python -m gensupcon_jax.plan --config configs/imagenet.py --topology v5e:4x4[,v4:2x2x4]."""

import json
import math
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # the slices are described, not opened; a TPU of this machine is left alone

import jax
from absl import app, flags
from ml_collections import config_flags

from gensupcon_jax import main as command
from gensupcon_jax.errors import UserError

_TOPOLOGY = flags.DEFINE_list("topology", [], "Slices to compile for, such as v5e:4x4,v4:2x2x4; gpu:8 for 8 GPUs.")
_BATCH_SIZES = flags.DEFINE_list("batch_size", [], "Batches over all chips, such as 1024,2048; default: the config's.")
_PRICE = flags.DEFINE_float("price_per_chip_hour", None, "Adds the cost, in whatever this is in.", lower_bound=0.0)
_JSON = flags.DEFINE_string("json", None, "File for the same figures; default: plan_<name of the config>.json.")
_MARK = "gensupcon_jax plan"
_SIZES = {
    name: flags.DEFINE_integer(name, None, f"{meaning}; where the data set is not a known one.", lower_bound=1)
    for name, meaning in (
        ("image_size", "Pixels of an image's side"),
        ("num_channels", "Channels of an image"),
        ("num_classes", "Classes"),
        ("num_images", "Training images"),
    )
}


def main(argv: list[str]) -> None:
    """Print the plan of the config on every slice with every batch, and write the figures beside it."""
    if argv[1:]:
        raise UserError(f"unknown arguments {' '.join(argv[1:])}; see --help")
    jax.config.update("jax_enable_compilation_cache", False)  # jax cannot read back what it compiled for other devices
    from gensupcon_jax.plan import compare, table  # after the flags: a wrong one is said at once

    if _PRICE.value is not None and not math.isfinite(_PRICE.value):
        raise UserError(f"--price_per_chip_hour is {_PRICE.value}; allowed: a number from 0")
    if not _TOPOLOGY.value:
        raise UserError("--topology is missing; for example --topology v5e:4x4,v4:2x2x4")
    config, name = flags.FLAGS["config"].value, _name(config_flags.get_config_filename(flags.FLAGS["config"]))
    path = Path(_JSON.value or f"plan_{name}.json")
    _check_replaceable(path)
    figures = compare.plan(
        config,
        topologies=_TOPOLOGY.value,
        batch_sizes=[_whole_number(text) for text in _BATCH_SIZES.value] or [config.batch_size],
        sizes={name: flag.value for name, flag in _SIZES.items()},
        say_fn=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    print(table.text(figures, price_per_chip_hour=_PRICE.value))
    rows = table.as_json(figures, price_per_chip_hour=_PRICE.value)
    path.write_text(json.dumps({_MARK: rows}, indent=1) + "\n")
    print(f"\nThe same figures, unrounded: {path}")


def _name(config_file: str) -> str:
    """configs/imagenet.py:supcon -> imagenet_supcon."""
    path, _, variant = config_file.partition(":")
    return "_".join(filter(None, (Path(path).stem, variant)))


def _check_replaceable(path: Path) -> None:
    """UserError where the file to write is something else than an older plan, or its folder is not there."""
    if not path.parent.is_dir():
        raise UserError(f"--json is {str(path)!r}, but {path.parent} is no folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--json is {str(path)!r}, which may not be written; give another file")
    if path.exists():
        try:
            is_plan = _MARK in json.loads(path.read_text())
        except (OSError, ValueError, TypeError):
            is_plan = False
        if not is_plan:
            raise UserError(f"{path} exists and is no plan; give another file with --json")


def _whole_number(text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(f"--batch_size has {text!r}; allowed: whole numbers from 1, with commas between them")
    return int(text)


def run() -> None:
    """Entry of `python -m gensupcon_jax.plan`: user mistakes end in one line, status 1."""
    try:
        app.run(main, flags_parser=command.parse_flags)
    except UserError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; nothing was written")


if __name__ == "__main__":
    run()
