"""The command: gensupcon plan --config imagenet --topology v5e:4x4[,v4:2x2x4]."""

import json
import os
import sys
from pathlib import Path

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import read_object
from gensupcon_jax.paths import write_whole
from gensupcon_jax.run import recipes

_MARK = "gensupcon_jax plan"
_SIZES = {
    "image_size": "height and width of an image, in pixels",
    "num_channels": "channels of an image",
    "num_classes": "classes",
    "num_images": "training images",
}


def main(arguments: list[str], program: str) -> None:
    """Print the plan of the config on every slice with every batch size, and write the figures to a file."""
    parser = build_parser(program)
    options = recipes.parse_with_recipe(parser, arguments)
    if not options.topology:
        raise UserError("--topology is missing; for example --topology v5e:4x4,v4:2x2x4")
    beside = {name: recipes.read_recipe(name) for name in options.beside}
    path = Path(options.json or f"plan_{recipes.run_name(options.recipe, options.config.dataset.name)}.json")
    _check_replaceable(path)
    batch_sizes = [_whole_number(text) for text in options.batch_size] or [options.config.batch_size]
    os.environ["JAX_PLATFORMS"] = "cpu"  # the slices are described, not opened; a TPU of this machine is not used
    # After the arguments: a wrong one is reported before jax is imported.
    import jax

    from gensupcon_jax.plan import compare, table

    jax.config.update("jax_enable_compilation_cache", False)  # jax cannot reload programs compiled for other devices
    settings = {"topologies": options.topology, "say_fn": lambda text: print(text, file=sys.stderr, flush=True)}
    sizes = {name: getattr(options, name) for name in _SIZES}
    figures = compare.plan(options.config, batch_sizes=batch_sizes, sizes=sizes, **settings)
    for name, config in beside.items():
        others = compare.plan(config, batch_sizes=[config.batch_size], **settings)
        figures = [each._replace(recipe=each.recipe or options.recipe) for each in figures]
        figures += [each._replace(recipe=name) for each in others]
    print(table.text(figures, price_per_chip_hour=options.price_per_chip_hour))
    rows = table.as_json(figures, price_per_chip_hour=options.price_per_chip_hour)
    write_whole(path, (json.dumps({_MARK: rows}, indent=1) + "\n").encode())
    print(f"\nThe same figures, unrounded: {path}")


def build_parser(program: str) -> command_line.Parser:
    """The arguments of plan."""
    parser = command_line.Parser(
        program,
        "Compile a recipe's step for hardware that is not present, and report its memory, cost and speed limits.",
    )
    recipes.add_flags(parser)
    parser.add_argument(
        "--topology",
        metavar="SLICES",
        type=command_line.with_commas,
        help="slices to compile for, such as v5e:4x4,v4:2x2x4; gpu:8 for 8 GPUs",
    )
    parser.add_argument(
        "--batch_size",
        metavar="NUMBERS",
        type=command_line.with_commas,
        default=[],
        help="batch sizes over all chips, such as 1024,2048 (default: the recipe's)",
    )
    parser.add_argument(
        "--beside",
        metavar="RECIPES",
        type=command_line.with_commas,
        default=[],
        help="other recipes to plan as they are, in columns beside, such as imagenet",
    )
    parser.add_argument(
        "--price_per_chip_hour",
        metavar="PRICE",
        type=command_line.number_from(0),
        help="report the cost too, in the currency of the price",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="file for the same figures (default: plan_<name of the recipe>.json)"
    )
    sizes = parser.add_argument_group("sizes, if the data set is not a known one")
    for name, meaning in _SIZES.items():
        sizes.add_argument(f"--{name}", metavar="N", type=command_line.whole_number(1), help=meaning)
    return parser


def _check_replaceable(path: Path) -> None:
    """UserError if the file exists and is not a plan, or its folder does not exist."""
    if not path.parent.is_dir():
        raise UserError(f"--json is {str(path)!r}, but {path.parent} is not a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--json is {str(path)!r}, which is not writable; give another file")
    if path.exists():
        try:
            is_plan = _MARK in read_object(path, "")
        except UserError:
            is_plan = False
        if not is_plan:
            raise UserError(f"{path} exists and is not a plan; give another file with --json")


def _whole_number(text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(f"--batch_size has {text!r}; allowed: whole numbers from 1, with commas between them")
    return int(text)
