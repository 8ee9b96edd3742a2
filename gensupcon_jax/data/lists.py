"""Lists of images in a CSV or Parquet file: a row for each with its path, its labels and its split."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Int

from gensupcon_jax import paths
from gensupcon_jax.data.file_listing import list_files
from gensupcon_jax.data.folders import SPLIT_NAMES
from gensupcon_jax.data.list_columns import Named, choose_columns, described, path_column
from gensupcon_jax.data.list_labels import Labels, numbers_hint, read_labels
from gensupcon_jax.data.list_paths import ListedPaths, listed_paths, refuse_missing
from gensupcon_jax.data.list_tables import Table, quoted, read_table
from gensupcon_jax.data.listing import Listing, unlabeled_note
from gensupcon_jax.data.splits import NO_CLASS
from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.text import counted, listed, visible

_SPLITS = tuple(SPLIT_NAMES)


class ListSettings(NamedTuple):
    """How a list is read; the fields are those of the config's `dataset`.

    folder: that the paths are relative to; None: that of the list.  splits: the name of each split in the column of splits;
    None: the usual ones.
    """

    folder: str | None = None
    columns: Named = Named()
    splits: Mapping[str, str | None] = {}
    label_kind: str = "class"
    skip_damaged: bool = False
    cache_folder: paths.Path | None = None


class ImageList(NamedTuple):
    """A list that was read: the listing of each split, and sentences for the log.  root: of the paths that are relative."""

    listings: dict[str, Listing]
    class_names: tuple[str, ...]
    notes: list[str]
    root: str


class ListedFiles(NamedTuple):
    """The files of all rows, without their labels: path of each, its name in the list, and its class as a text ("": none)."""

    files: list[str]
    names: list[str]
    labels: list[str] | None
    root: str


def list_images(form: str, path: str, settings: ListSettings) -> ImageList:
    """The images of a list by split, with their labels; where none has one, the only class is `NO_CLASS`.

    Images of validation and test without a label are left out, as is a split without labels.  Raises UserError, with the place in
    the file, for what cannot be read: columns, labels, files that do not exist, one image in two rows that do not agree.
    """
    source = f"{form}:{path}"
    file = epath.Path(path).expanduser()
    table = read_table(file, form)
    columns = choose_columns(table, settings.columns, source)
    split_of, notes = _splits(table, columns.split, settings.splits, source)
    used = split_of >= 0
    labels = read_labels(table, columns.labels, settings.label_kind, in_training=split_of == 0, used=used)
    if not len(labels.class_names):
        if settings.label_kind != "class":
            raise UserError(
                f"{source} has no label in its {counted(int((split_of == 0).sum()), 'row')} of training, column "
                f"{listed(columns.labels, 3)}; allowed with dataset.label_kind {settings.label_kind}: labels of some images"
            )
        labels = labels._replace(class_names=(NO_CLASS,))
    listed_files = listed_paths(table, columns.path, used, file, settings.folder)
    kept, repeats = _without_repeats(listed_files.names, split_of, labels, table, used)
    refuse_missing(listed_files, kept, table, skip_damaged=settings.skip_damaged)
    notes = [described(columns, table.how), *notes, *labels.notes, *repeats]
    listings = {}
    for number, split in enumerate(_SPLITS):
        rows = kept[split_of[kept] == number]
        rows, more = _labeled(rows, labels, split, settings.label_kind)
        notes += more
        if len(rows):
            listings[split] = _listing(f"{source}_{split}", rows, listed_files, labels, settings.cache_folder)
    return ImageList(listings, labels.class_names, notes, listed_files.root)


def list_only_files(form: str, path: str) -> ListedFiles:
    """The files of all rows of a list, and their classes where it has a column of one class each."""
    source = f"{form}:{path}"
    file = epath.Path(path).expanduser()
    table = read_table(file, form)
    everything = np.ones(len(table.places), bool)
    column = path_column(table, None, source)
    found = listed_paths(table, column, everything, file, None)
    refuse_missing(found, np.arange(len(found.files)), table, skip_damaged=False)
    return ListedFiles(found.files, table.texts(column), _labels_if_any(table, source), found.root)


def _labels_if_any(table: Table, source: str) -> list[str] | None:
    try:
        columns = choose_columns(table, Named(), source)
    except UserError:
        return None  # a list of paths alone
    return table.texts(columns.labels[0]) if len(columns.labels) == 1 else None


def _splits(
    table: Table, column: str | None, wanted: Mapping[str, str | None], source: str
) -> tuple[Int[np.ndarray, "row"], list[str]]:
    """The number of the split of each row, -1 for a row that no split uses, and notes on those."""
    num_rows = len(table.places)
    given = {split: name for split, name in wanted.items() if name is not None}
    if column is None:
        if given:
            split, name = next(iter(given.items()))
            raise UserError(
                f"dataset.{split}_split is {name!r}, but {source} has no column of splits; name it with dataset.split_column, or "
                f"set dataset.{split}_split to None"
            )
        return np.zeros(num_rows, np.int64), []
    cells = [text.casefold() for text in table.texts(column)]
    counts = {name: cells.count(name) for name in dict.fromkeys(cells)}
    numbers = {}
    taken = {name.casefold() for name in given.values()}  # not also for another split, by its usual name
    for number, split in enumerate(_SPLITS):
        usual = next((name for name in SPLIT_NAMES[split] if name in counts and name not in taken), None)
        name = given.get(split, usual)
        if name is not None and name.casefold() not in counts:
            raise UserError(
                f"dataset.{split}_split is {name!r}, but column {visible(column)} of {source} holds {listed(counts, 8)}; "
                "allowed: one of them, or None"
            )
        if name is not None:
            numbers[name.casefold()] = number
    if 0 not in numbers.values():
        raise UserError(
            f"column {visible(column)} of {source} names no training images: it holds {listed(map(quoted, counts), 8)}; allowed: "
            f"{', '.join(name for names in SPLIT_NAMES.values() for name in names)} in any case, or name yours with "
            "dataset.train_split; a column that does not hold splits needs another name"
        )
    notes = [
        f"used by no split: {counted(count, 'row')} with {quoted(name)} in column {visible(column)}"
        for name, count in counts.items()
        if name not in numbers
    ]
    return np.array([numbers.get(cell, -1) for cell in cells], np.int64), notes


def _without_repeats(
    names: Sequence[str],
    split_of: Int[np.ndarray, "row"],
    labels: Labels,
    table: Table,
    used: Bool[np.ndarray, "row"],
) -> tuple[Int[np.ndarray, "kept"], list[str]]:
    """The first row of each image; UserError where another row of it names another label or split."""
    first: dict[str, int] = {}
    differing: dict[str, list[str]] = {"with different labels": [], "in two splits": []}
    num_repeats = 0
    for row in np.flatnonzero(used).tolist():
        before = first.setdefault(names[row], row)
        if before == row:
            continue
        num_repeats += 1
        what = f"{names[row]} ({table.place(before)} and {table.places[row]})"
        if split_of[before] != split_of[row]:
            differing["in two splits"].append(what)
        elif not labels.are_equal(before, row):
            differing["with different labels"].append(what)
    for how, found in differing.items():
        if found:
            raise UserError(
                f"{counted(len(found), 'path')} {'stands' if len(found) == 1 else 'stand'} in two rows {how}: {listed(found)}; "
                "allowed: one row for each image"
            )
    notes = [f"left out: {counted(num_repeats, 'row')} with a path that was listed before"] if num_repeats else []
    return np.array(list(first.values()), np.int64), notes


def _labeled(
    rows: Int[np.ndarray, "some"], labels: Labels, split: str, label_kind: str
) -> tuple[Int[np.ndarray, "kept"], list[str]]:
    """The rows of a split that are used: in validation and test those with a label; and a note on the others."""
    has_label = labels.classes[rows] >= 0
    num_without = int((~has_label).sum())
    are = "image" if num_without == 1 else "images"
    if not num_without:
        return rows, []
    if label_kind == "several":
        return rows, [f"{num_without:,} {are} of {split} with none of the labels"]
    if split == "train":
        return rows, [unlabeled_note(num_without)]
    return rows[has_label], [f"{num_without:,} {are} of {split} without a label: not used"]


def _listing(
    cache_name: str,
    rows: Int[np.ndarray, "some"],
    found: ListedPaths,
    labels: Labels,
    cache_folder: paths.Path | None,
) -> Listing:
    """The listing of these rows; its fingerprint covers names and sizes of the files, and the labels."""
    listing = list_files(
        [found.files[row] for row in rows],
        labels.classes[rows],
        names=[found.names[row] for row in rows],
        cache_name=cache_name,
        text=f"reading headers of {cache_name.rpartition('_')[2]}",
        cache_folder=cache_folder,
    )
    own, values = (None if each is None else each[rows] for each in (labels.rows, labels.values))
    content = (labels.classes[rows], *(each for each in (own, values) if each is not None))
    parts = (listing.fingerprint, *labels.class_names, *(each.tobytes() for each in content))
    return listing._replace(rows=own, values=values, fingerprint=fingerprint(parts))


def refuse_small_labels(found: ImageList, label_kind: str, *, is_validated: bool) -> None:
    """UserError where a class has too few images for the splits that are cut from training.

    is_validated: whether a missing validation split is cut.
    """
    missing = [split for split in ("validation", "test") if split not in found.listings]
    if found.listings.keys() == {"train", "validation"}:
        missing = ["validation"]  # the one that is there becomes the test split
    if not is_validated:
        missing = [split for split in missing if split != "validation"]
    classes = found.listings["train"].classes
    counts = np.bincount(classes[classes >= 0], minlength=len(found.class_names))
    small = [
        f"{name} has {count}"
        for name, count in zip(found.class_names, counts, strict=True)
        if 0 < count <= len(missing)
    ]
    if small and label_kind == "class":
        classes_of = f"{len(small)} class{'' if len(small) == 1 else 'es'} of too few images"
        raise UserError(
            f"{classes_of}: {listed(small)}; allowed: {len(missing) + 1} or more in each, as {' and '.join(missing)} images are "
            f"taken out of those; add images, or a column of splits{numbers_hint(found.class_names)}"
        )
