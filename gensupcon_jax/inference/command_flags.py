"""Flags that embed, predict, neighbors and evaluate share, and what is checked before jax is imported."""

import argparse
import os
from collections.abc import Sequence

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, as_path, is_remote

PART_LIMIT = 10_000
SOURCES = "a workdir of `gensupcon train`, a weights file (.safetensors, .pth), or an exported encoder (.stablehlo)"


def add_encoder(parser: command_line.Parser) -> None:
    """SOURCE, --step and --batch_size."""
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


def add_images(parser: command_line.Parser) -> None:
    """FOLDER or FILES, --strict, and --part_limit."""
    parser.add_argument(
        "images", metavar="FOLDER|FILES", nargs="+", help="a folder with images at any depth, or image files"
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
    path = as_path(source)
    if not path.exists():
        raise UserError(f"SOURCE is {source}, which does not exist; allowed: {SOURCES}")


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
    if not is_remote(path):
        folder = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"--output is {text}, but {folder} cannot be written; choose another file")
        path.parent.mkdir(parents=True, exist_ok=True)
    return path
