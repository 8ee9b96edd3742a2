"""Flags that embed, predict, neighbors and evaluate share, and what is checked before jax is imported."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, as_path, is_remote
from gensupcon_jax.text import reason

PART_LIMIT = 10_000
SOURCES = "a workdir of `gensupcon train`, a file of weights (.safetensors, .pth), or an exported .stablehlo file"


def add_encoder(parser: command_line.Parser) -> None:
    """SOURCE, --step, --batch_size, and what a file of weights does not say."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--step",
        metavar="STEP",
        type=checkpoint_step,
        default="last",
        help="of a workdir: best (on validation), last, or the number of a step (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=command_line.whole_number(1),
        default=64,
        help="images at a time, over all devices (default: %(default)d)",
    )
    _add_given(parser)


# Of `Encoder.load`: what a file of another program does not say.
_GIVEN = ("architecture", "image_size", "mean", "std", "center_share", "class_names")


def _add_given(parser: command_line.Parser) -> None:
    """What a file of weights does not say."""
    group = parser.add_argument_group("what a file of weights does not say (a workdir says all of it)")
    group.add_argument("--architecture", metavar="NAME", help="the network, as model.name of a recipe: resnet50, ...")
    group.add_argument(
        "--image_size", metavar="N", type=command_line.whole_number(1), help="height and width of its images, in pixels"
    )
    for name, what in (
        ("mean", "mean of each channel, 0..1: 0.485,0.456,0.406"),
        ("std", "standard deviation, likewise: 0.229,0.224,0.225"),
    ):
        group.add_argument(f"--{name}", metavar="NUMBERS", type=_numbers, help=what)
    group.add_argument(
        "--center_share",
        metavar="SHARE",
        type=command_line.number_from(0),
        help="share of the shorter side of an image that the center crop keeps",
    )
    group.add_argument(
        "--class_names", metavar="NAMES", type=command_line.with_commas, help="of its classifier, in order: cat,dog"
    )


def given_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of a file of weights, as `Encoder.load` takes it."""
    return {name: getattr(options, name) for name in _GIVEN if getattr(options, name, None) is not None}


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed: numbers with commas between them") from None


def add_images(parser: command_line.Parser) -> None:
    """FOLDER or FILES, --strict, and --part_limit."""
    parser.add_argument(
        "images",
        metavar="FOLDER|FILES",
        nargs="+",
        help="a folder with images at any depth, a list of images (.csv, .parquet), or image files",
    )
    command_line.add_switch(
        parser, "strict", "end with an error if an image cannot be decoded (default: it is left out)"
    )
    parser.add_argument(
        "--part_limit",
        metavar="N",
        type=command_line.whole_number(1),
        default=PART_LIMIT,
        help="with more images than this, parts of half as many are kept beside the output until it is complete, and the "
        "same command resumes from them (default: %(default)d)",
    )


def add_output(parser: command_line.Parser, what: str, *, required: bool = False) -> None:
    """--output and --overwrite."""
    parser.add_argument("--output", metavar="FILE", required=required, help=what)
    command_line.add_switch(parser, "overwrite", "replace the output if it exists (default: it is kept)")


def checkpoint_step(text: str) -> str | int:
    """The type of --step."""
    if text in ("best", "last"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed: best, last, or the number of a step")
    return int(text)


def check_source(source: str) -> None:
    """UserError where there is nothing at SOURCE; what there is, the encoder checks."""
    paths = (source, source.rpartition("#")[0])  # an entry of a file: checkpoint.pth#state_dict_ema
    if not any(path and as_path(path).exists() for path in paths):
        raise UserError(f"SOURCE is {source}, which does not exist; allowed: {SOURCES}")


def checked_output_if_given(options: argparse.Namespace, suffix: str) -> Path | None:
    """The path of --output; None without it."""
    if options.output is None:
        return None
    return checked_output(options.output, (suffix,), overwrite=options.overwrite)


def checked_output(text: str, suffixes: Sequence[str], *, overwrite: bool) -> Path:
    """The path of --output; UserError for another suffix, one that exists and is kept, and one that cannot be written."""
    path = as_path(text)
    if path.suffix not in suffixes:
        raise UserError(f"--output is {text!r}; allowed: a file that ends with {', '.join(suffixes)}")
    if path.is_dir():
        raise UserError(f"--output is {text}, which is a folder; allowed: a file that ends with {', '.join(suffixes)}")
    if path.exists() and not overwrite:
        raise UserError(
            f"--output is {text}, which exists and is kept; choose another file, or replace it with --overwrite"
        )
    beside = names_file(path)
    if path.suffix == ".npy" and beside.exists() and not overwrite:
        raise UserError(
            f"--output is {text}, whose names belong into {beside}, which exists and is kept; choose another file, or replace "
            "both with --overwrite"
        )
    if not is_remote(path):
        folder = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"--output is {text}, but {folder} cannot be written; choose another file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--output is {text}, but the folder {path.parent} cannot be made ({reason(error)}); choose another file"
            ) from error
    return path


def names_file(path: Path) -> Path:
    """The file with the names of the images of an .npy: photos.npy -> photos.names.csv."""
    return path.with_name(f"{path.stem}.names.csv")
