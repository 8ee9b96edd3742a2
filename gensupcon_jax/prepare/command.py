"""The command that prepares and checks a data set: python -m gensupcon_jax.prepare --config configs/imagenet.py."""

import shlex
import sys
from pathlib import Path

from absl import app, flags, logging

from gensupcon_jax import main as run_main
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.data.datasets import Reading
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import require_tensorflow
from gensupcon_jax.prepare.check_table import (
    class_rows,
    damaged_lines,
    findings,
    remarks,
    split_name,
    split_rows,
    table,
)
from gensupcon_jax.prepare.checking import Check, CheckedSplit, Copies, check_set, find_copies
from gensupcon_jax.prepare.conversion import FORMATS
from gensupcon_jax.prepare.fetching import fetch
from gensupcon_jax.report import ContactSheet, Picture, write_contact_sheet
from gensupcon_jax.report.contact import MARK
from gensupcon_jax.run.config_check import refusal
from gensupcon_jax.store.workdir import DATA_CACHE, flatten

_FILE_FORMAT = flags.DEFINE_string(
    "file_format",
    None,
    "array_record or tfrecord: how a tfds: set is kept. A set that is prepared otherwise is converted. Default: as it is; "
    "of new sets array_record, on object stores tfrecord.",
)
_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Folder of files that were fetched before, for tfds: sets. Default: <dataset.folder>/downloads/manual.",
)
_OUTPUT = flags.DEFINE_string("output", None, "The contact sheet, an HTML file. Default: <workdir>_data.html.")

_OF_MAIN = ("config", "workdir")  # flags of training that mean something here
_IMAGES_A_CLASS = 4
_MOST_CLASSES = 30
_EXTREME_CLASSES = 5
_COPY_GROUPS = 12
_COPIES_SHOWN = 6


def main(argv: list[str]) -> None:
    """Prepare the config's data set where it is not, check it, print the table, and write the contact sheet."""
    _check_flags(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    fields = flags.FLAGS["config"].value.dataset
    name, workdir = fields.name, _local_workdir()
    output = Path(_OUTPUT.value or workdir.with_name(f"{workdir.name}_data.html"))
    _check_output(output)
    known = {field: fields[field] for field in Reading._fields if field in fields}
    reading = Reading(cache_folder=workdir.parent / DATA_CACHE, **known)
    builder = None
    if name.startswith("tfds:"):
        builder, _ = fetch(
            name.removeprefix("tfds:"), reading.folder, file_format=_FILE_FORMAT.value, source=_SOURCE.value, say=_say
        )
    check = check_set(name, reading, builder)
    copies = find_copies(check)
    print(f"{check.name}: {len(check.class_names)} classes, {check.place}\n\n{table(check, copies)}\n")
    command = shlex.join(["python", "-m", "gensupcon_jax.prepare", *sys.argv[1:]])
    _write(output, contact_sheet(check, copies, command))
    print(f"contact sheet: {output}")


def _local_workdir() -> Path:
    """What training takes as its workdir; of one on an object store, the local default: cache and page are kept beside it."""
    given = flags.FLAGS["workdir"].value
    return Path(given) if given and "://" not in given else run_main.default_workdir()


def _say(text: str) -> None:
    print(text, flush=True)


def _check_flags(argv: list[str]) -> None:
    if argv[1:]:
        raise UserError(
            f"unknown arguments {' '.join(argv[1:])}; allowed: --config, --workdir, --file_format, --source, --output, "
            "--config.field=value (with =)"
        )
    others = [
        flag.name
        for flag in flags.FLAGS.flags_by_module_dict().get(run_main.__name__, [])
        if flag.present and flag.name not in _OF_MAIN and not flag.name.startswith("config.")
    ]
    if others:
        raise UserError(f"--{others[0]} is a flag of training, not of prepare; leave it out")
    fields = flatten({"dataset": flags.FLAGS["config"].value.dataset.to_dict()})
    wrong = [
        f"{field} is {fields[field]!r}; allowed: {allowed}"
        for field in FIELDS
        if field in fields and (allowed := refusal(field, fields[field]))
    ]
    if wrong:
        raise UserError("\n".join(wrong))
    name = fields["dataset.name"]
    if name == "arrays":
        raise UserError(
            "dataset.name is 'arrays', which Python hands over; allowed here: digits, tfds:<name>, folder:<path>"
        )
    if _FILE_FORMAT.value not in (None, *FORMATS):
        raise UserError(f"--file_format is {_FILE_FORMAT.value!r}; allowed: {', '.join(FORMATS)}")
    for flag in (_FILE_FORMAT, _SOURCE):
        if flag.value is not None and not name.startswith("tfds:"):
            raise UserError(f"--{flag.name} is given, but dataset.name is {name!r}; allowed with tfds:<name> only")
    if name.startswith(("tfds:", "folder:")):
        require_tensorflow(f"dataset.name is {name!r}")


def _check_output(path: Path) -> None:
    """An older contact sheet is replaced; anything else that somebody has there is not."""
    if path.is_dir():
        raise UserError(f"--output is {path}, which is a folder; allowed: the path of an HTML file")
    if path.exists() and f'content="{MARK}"' not in path.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise UserError(
            f"--output is {path}, which is there and is no contact sheet; choose another path, or move it away"
        )


def _write(path: Path, sheet: ContactSheet) -> None:
    try:
        write_contact_sheet(path, sheet)
    except OSError as error:
        raise UserError(
            f"the contact sheet {path} cannot be written ({error.strerror or error}); set --output to another path"
        ) from error


def contact_sheet(check: Check, copies: Copies, command: str) -> ContactSheet:
    """The page of a check: a few images of each class, copies side by side, damaged ones by name."""
    chosen = shown_classes(check)
    return ContactSheet(
        title=check.name,
        command=command,
        facts=[("classes", f"{len(check.class_names):,}"), ("lies in", check.place)],
        findings=findings(check, copies),
        remarks=remarks(check),
        tables=[split_rows(check, copies), class_rows(check)],
        splits=[split_name(split) for split in check.splits],
        classes=[
            (check.class_names[number], [_pictures(split, number) for split in check.splits]) for number in chosen
        ],
        classes_left_out=len(check.class_names) - len(chosen),
        copies=[
            [_picture(check.splits[split], index) for split, index in group[:_COPIES_SHOWN]]
            for group in copies.examples[:_COPY_GROUPS]
        ],
        damaged=damaged_lines(check),
    )


def shown_classes(check: Check) -> list[int]:
    """All classes; of many those with the fewest and the most training images, and some spread evenly between."""
    num_classes = len(check.class_names)
    if num_classes <= _MOST_CLASSES:
        return list(range(num_classes))
    order = check.splits[0].counts(num_classes).argsort(kind="stable").tolist()
    extremes = order[:_EXTREME_CLASSES] + order[-_EXTREME_CLASSES:]
    middle = order[_EXTREME_CLASSES:-_EXTREME_CLASSES]
    between = _spread(middle, _MOST_CLASSES - len(extremes))
    return sorted(extremes + between)


def _spread(items: list[int], num: int) -> list[int]:
    """So many of them, evenly spaced, the first and the last among them."""
    if len(items) <= num:
        return items
    return [items[round(place * (len(items) - 1) / (num - 1))] for place in range(num)]


def _pictures(split: CheckedSplit, number: int) -> list[Picture]:
    of_class = [int(index) for index in split.sound if split.classes[index] == number]
    return [_picture(split, index) for index in _spread(of_class, _IMAGES_A_CLASS)]


def _picture(split: CheckedSplit, index: int) -> Picture:
    try:
        pixels = split.pixels_fn(index)
    except (OSError, ValueError):  # it was there a moment ago: the page says so
        pixels = None
    return Picture(split.where_fn(index), pixels)


def run() -> None:
    """Entry of `python -m gensupcon_jax.prepare`: user mistakes end without a traceback, status 1."""
    try:
        app.run(main, flags_parser=run_main.parse_flags)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command begins again with what is not done yet")


if __name__ == "__main__":
    run()
