"""The command that prepares and checks a data set: gensupcon prepare --config imagenet."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow, require_tensorflow
from gensupcon_jax.run import recipes

_SHORT_SIDES = (16, 4096)
_QUALITY = 90  # of smaller_images.Smaller, without its slow imports
_FORMATS = ("array_record", "tfrecord")  # conversion.FORMATS, without its slow imports


def main(arguments: list[str], program: str) -> None:
    """Prepare the recipe's data set if necessary, check it, print the table, and write the contact sheet."""
    quiet_tensorflow()
    parser = build_parser(program)
    options = recipes.parse_with_recipe(parser, arguments)
    workdir = _local_workdir(options)
    output = Path(options.output or workdir.with_name(f"{workdir.name}_data.html"))
    _check(options, output)
    try:
        _prepare(options, workdir, output, shlex.join([*program.split(), *arguments]))
    except UserError as error:  # some have several lines: the files to download, and their folder
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted; the same command resumes with the remaining work") from None


def build_parser(program: str) -> command_line.Parser:
    """The parser of the command line of `gensupcon prepare`."""
    parser = command_line.Parser(
        program, "Prepare the data set of a recipe if necessary, check it, and write a contact sheet of it."
    )
    recipes.add_flags(parser)
    parser.add_argument(
        "--workdir",
        metavar="FOLDER",
        help="the --workdir of the training, for the cache beside it (default: as for train)",
    )
    parser.add_argument(
        "--file_format",
        metavar="FORMAT",
        type=command_line.one_of(*_FORMATS),
        help="array_record or tfrecord: file format of a tfds: data set; one in another format is converted (default: its "
        "current format; for new data sets array_record, on object stores tfrecord)",
    )
    parser.add_argument(
        "--source",
        metavar="FOLDER",
        help="the folder of files downloaded by hand, for tfds: data sets (default: <dataset.folder>/downloads/manual)",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="the contact sheet, an HTML file (default: <workdir>_data.html)"
    )
    parser.add_argument(
        "--short_side",
        metavar="PIXELS",
        type=command_line.whole_number(*_SHORT_SIDES),
        help="write a smaller copy, a data set of its own: JPEGs with this shorter side, such as 256, 288 or 320; the data set "
        "is then neither checked nor shown",
    )
    parser.add_argument(
        "--quality",
        metavar="NUMBER",
        type=command_line.whole_number(1, 100),
        help=f"JPEG quality of the copy, 1 to 100 (default: {_QUALITY})",
    )
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="where the copy is written, for its dataset.folder (default: that of a tfds: data set; beside a folder of images)",
    )
    return parser


def _prepare(options: argparse.Namespace, workdir: Path, output: Path, command: str) -> None:
    # Imported here, so that wrong arguments are reported first.
    from absl import logging

    from gensupcon_jax.data.datasets import Reading
    from gensupcon_jax.prepare.contents import find_copies, read_contents
    from gensupcon_jax.prepare.contents_table import labels_in_words, table
    from gensupcon_jax.prepare.fetching import fetch
    from gensupcon_jax.prepare.sheet import contact_sheet
    from gensupcon_jax.report import write_contact_sheet
    from gensupcon_jax.store.workdir import DATA_CACHE

    logging.set_verbosity(logging.ERROR)
    fields = options.config.dataset
    known = {field: fields[field] for field in Reading._fields if field in fields}
    reading = Reading(cache_folder=workdir.parent / DATA_CACHE, **known)
    builder = None
    if fields.name.startswith("tfds:"):
        name = fields.name.removeprefix("tfds:")
        settings = {"file_format": options.file_format, "source": options.source, "label_kind": reading.label_kind}
        builder, _ = fetch(name, reading.folder, log_fn=_print, **settings)
    if options.short_side is not None:
        _print(_copy(options, reading, builder))
        return
    contents = read_contents(fields.name, reading, builder)
    copies = find_copies(contents)
    print(f"{contents.name}: {labels_in_words(contents)}, {contents.place}\n\n{table(contents, copies)}\n")
    write_contact_sheet(output, contact_sheet(contents, copies, command))
    print(f"contact sheet: {output}")


def _copy(options: argparse.Namespace, reading: Any, builder: Any) -> str:
    """Write a smaller copy; what was written, and how to train on it."""
    from gensupcon_jax.prepare.smaller_copy import Damage, read_original, write_copy
    from gensupcon_jax.prepare.smaller_images import Smaller

    original = read_original(options.config.dataset.name, reading, builder)
    into = options.into or original.place
    if "://" in into:
        raise UserError(f"the copy would be written to {into}; allowed: a folder of this machine, with --into")
    for note in original.notes:
        _print(note)
    copied = write_copy(
        original,
        Smaller(options.short_side, options.quality or _QUALITY),
        Path(into).expanduser(),
        damage=Damage(reading.skip_damaged, reading.max_damaged_share),
        num_threads=reading.num_threads,
    )
    return copied.described()


def _local_workdir(options: argparse.Namespace) -> Path:
    """The workdir of the training, or the local default for one on an object store: cache and page are beside it."""
    given = options.workdir
    return Path(given) if given and "://" not in given else recipes.default_workdir(options)


def _print(text: str) -> None:
    print(text, flush=True)


def _check(options: argparse.Namespace, output: Path) -> None:
    """UserError for options that do not apply to the data set, and for an output file that is not a contact sheet."""
    from gensupcon_jax.configs.fields import FIELDS
    from gensupcon_jax.data.datasets import SOURCES
    from gensupcon_jax.run.config_check import column_problems, refusal
    from gensupcon_jax.text import flatten

    fields = flatten({"dataset": options.config.dataset.to_dict()})
    wrong = [
        f"{field} is {fields[field]!r}; allowed: {allowed}"
        for field in FIELDS
        if field in fields and (allowed := refusal(field, fields[field]))
    ]
    if wrong:
        raise UserError("\n".join(wrong))
    name = fields["dataset.name"]
    if name == "arrays":
        allowed = ", ".join(form for form in SOURCES if form != "arrays")
        raise UserError(f"dataset.name is 'arrays', which is for Python only; allowed here: {allowed}")
    for flag in ("file_format", "source"):
        if getattr(options, flag) is not None and not name.startswith("tfds:"):
            raise UserError(f"--{flag} is given, but dataset.name is {name!r}; allowed with tfds:<name> only")
    for flag in ("quality", "into"):
        if getattr(options, flag) is not None and options.short_side is None:
            raise UserError(f"--{flag} is given without --short_side; allowed with it only")
    if problems := column_problems(options.config):
        raise UserError("\n".join(problems))
    if options.short_side is not None and options.output is not None:
        raise UserError("--output is given with --short_side, which writes no contact sheet; leave one of them out")
    if name.startswith(("tfds:", "folder:", "csv:", "parquet:")):
        require_tensorflow(f"dataset.name is {name!r}")
    if options.short_side is None:
        check_output(output)


def check_output(path: Path) -> None:
    """UserError unless the path is free or an older contact sheet, which is replaced."""
    if path.is_dir():
        raise UserError(f"--output is {path}, which is a folder; allowed: the path of an HTML file")
    if not path.exists():
        return
    from gensupcon_jax.report.contact import MARK

    if f'content="{MARK}"' not in path.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise UserError(
            f"--output is {path}, which exists and is not a contact sheet; choose another path, or move it away"
        )
