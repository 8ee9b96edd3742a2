"""Inspection of every image of a data set: counts, sizes, damaged images, and duplicates."""

import concurrent.futures
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int, UInt8, UInt64

from gensupcon_jax.data import datasets, folders, lists, tfds_sets
from gensupcon_jax.data.datasets import Reading
from gensupcon_jax.data.decoding import decode_upright
from gensupcon_jax.data.image_formats import image_format_of
from gensupcon_jax.data.listing import Listing, with_progress
from gensupcon_jax.data.splits import NO_CLASS, AnySplit, EncodedSplit
from gensupcon_jax.data.tfds_labels import several_labels_of
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare.conversion import read_records
from gensupcon_jax.text import one_line, reason

VALUE = "value"  # the only name of a class where the label of an image is a number
_AT_ONCE = 256


class SplitContents(NamedTuple):
    """The images of one split.

    split: train, validation or test.  source_name: its name in the source.  classes: -1 without a label.  sizes: 0 where the
    header cannot be read.  problems: why an image cannot be decoded, None where it can.  fingerprints: of the encoded bytes,
    or of the pixels in memory.  formats: number of images of each.  num_turned: number of images with an EXIF rotation.  rows,
    values: labels that are not one class each.
    """

    split: str
    source_name: str
    classes: Int[np.ndarray, "example"]
    sizes: Int[np.ndarray, "example height_width=2"]
    problems: list[str | None]
    fingerprints: UInt64[np.ndarray, "example"]
    formats: Counter
    num_turned: int
    where_fn: Callable[[int], str]
    pixels_fn: Callable[[int], UInt8[np.ndarray, "height width channel"]]
    rows: Float[np.ndarray, "example class"] | None = None
    values: Float[np.ndarray, "example"] | None = None

    @property
    def intact(self) -> Int[np.ndarray, "some"]:
        """The images that can be decoded."""
        return np.flatnonzero([problem is None for problem in self.problems])

    @property
    def num_damaged(self) -> int:
        """Number of images that cannot be decoded."""
        return len(self.problems) - len(self.intact)

    def counts(self, num_classes: int) -> Int[np.ndarray, "class"]:
        """Number of images per class, including damaged ones; of several labels each image counts for all of its own."""
        if self.rows is not None:
            return np.round(self.rows.sum(axis=0)).astype(np.int64)
        within = (self.classes >= 0) & (self.classes < num_classes)
        return np.bincount(self.classes[within], minlength=num_classes)


class Contents(NamedTuple):
    """All splits of a data set.

    place: its location.  notes: sentences of the source.  damaged_files: one sentence per file.  is_validated: whether training
    would cut off a validation split.  label_kind: class, several or value, whose only class is `VALUE`.
    """

    name: str
    place: str
    class_names: tuple[str, ...]
    splits: tuple[SplitContents, ...]
    notes: tuple[str, ...] = ()
    damaged_files: tuple[str, ...] = ()
    is_validated: bool = True
    label_kind: str = "class"

    @property
    def has_labels(self) -> bool:
        """Whether some training image has a label."""
        return self.class_names != (NO_CLASS,)


class Copies(NamedTuple):
    """Images that occur more than once.

    within: by split, number of copies of other images of that split.  across: by pair of splits, number of images of the
    second that are also in the first.  two_classes: number of images that have copies with another label.  examples: (split,
    index) of the images of some groups, those across splits first.
    """

    within: dict[str, int]
    across: dict[tuple[str, str], int]
    two_classes: int
    examples: list[list[tuple[int, int]]]


def read_contents(name: str, reading: Reading, builder: Any = None) -> Contents:
    """Read every image of `dataset.name`: its header, whether it can be decoded, and its fingerprint.

    builder: of a prepared `tfds:` data set.  Damage is part of the result; UserError only where nothing can be read.
    """
    found = _read(name, reading, builder)
    return found._replace(
        is_validated=reading.validation_fraction > 0,
        label_kind=reading.label_kind,
        class_names=(VALUE,) if reading.label_kind == "value" else found.class_names,
    )


def _read(name: str, reading: Reading, builder: Any) -> Contents:
    form, rest = datasets.source_of(name)
    if form == "folder:<path>":
        return _folder(rest, reading)
    if form == "tfds:<name>":
        return _tfds(rest, reading, builder)
    if form in ("csv:<file>", "parquet:<file>"):
        return _list(form.partition(":")[0], rest, reading)
    return _dataset(name, datasets.load(name, **reading._asdict()), reading)


def _dataset(name: str, dataset: datasets.Dataset, reading: Reading) -> Contents:
    """The contents of a data set whose source lists no files: the splits as used in training."""
    splits = tuple(_with_labels(_split(name, split, reading), split, reading) for name, split in dataset.splits.items())
    place = "inside scikit-learn" if name == "digits" else f"from dataset.name {name}"
    return Contents(name, place, dataset.class_names, splits, (*dataset.notes, *dataset.damaged))


def _with_labels(contents: SplitContents, split: AnySplit, reading: Reading) -> SplitContents:
    """The contents with those labels of a split that are not one class each."""
    if reading.label_kind == "several":
        return contents._replace(rows=split.labels_of(np.arange(split.num_images)))
    if reading.label_kind == "value":
        return contents._replace(values=split.values, classes=np.zeros(split.num_images, np.int32))
    return contents


def _split(split: str, content: AnySplit, reading: Reading) -> SplitContents:
    if isinstance(content, EncodedSplit):
        listing = Listing(
            sources_fn=content.sources,
            where_fn=content.where,
            are_paths=content.are_paths,
            classes=content.classes,
            headers=content.headers,
            problems=[None] * content.num_images,
            fingerprint="",
            cache_key="",
        )
        return _listed_split(split, split, listing, reading)
    images, classes = content.images, content.classes
    return SplitContents(
        split=split,
        source_name=split,
        classes=classes,
        sizes=np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1)),
        problems=[None] * len(images),
        fingerprints=np.array([_fingerprint(image.tobytes()) for image in images], np.uint64),
        formats=Counter({"in memory": len(images)}),
        num_turned=0,
        where_fn=lambda index: f"{split} image {index}",
        pixels_fn=lambda index: images[index],
    )


def _folder(path: str, reading: Reading) -> Contents:
    listings, class_names, notes, _ = folders.list_folder(
        path, split_names=reading.split_names, cache_folder=reading.cache_folder
    )
    root = os.fspath(epath.Path(path).expanduser())
    splits = tuple(
        _listed_split(split, reading.split_names[split] or split, listing, reading)
        for split, listing in listings.items()
    )
    return Contents(f"folder:{path}", root, class_names, splits, tuple(notes))


def _list(form: str, path: str, reading: Reading) -> Contents:
    settings = datasets.list_settings(reading)._replace(
        skip_damaged=True
    )  # a missing file is a finding, as a damaged one is
    found = lists.list_images(form, path, settings)
    splits = tuple(
        _listed_split(split, reading.split_names[split] or split, listing, reading)
        for split, listing in found.listings.items()
    )
    return Contents(f"{form}:{path}", f"images in {found.root}", found.class_names, splits, tuple(found.notes))


def _tfds(name: str, reading: Reading, builder: Any) -> Contents:
    keys = tfds_sets.keys_of(builder)
    chosen = tfds_sets.choose_splits(builder, name, reading.split_names)
    if reading.label_kind == "several":
        keys = keys._replace(several=several_labels_of(builder.info.features, name))
    class_names = keys.several.names if keys.several else tuple(builder.info.features[keys.label].names)
    damaged = tuple(_damaged_files(builder, chosen))
    splits = tuple(
        _listed_split(split, text, _records_of(builder, keys, name, text, reading, damaged), reading)
        for split, text in chosen.items()
    )
    place = f"{os.fspath(builder.data_path)}, as {builder.info.file_format.value}"
    return Contents(f"tfds:{name}", place, class_names, splits, damaged_files=damaged)


def _records_of(
    builder: Any, keys: tfds_sets.Keys, name: str, split: str, reading: Reading, damaged: tuple[str, ...]
) -> Listing:
    try:
        return tfds_sets.list_records(builder, keys, name, split, reading.cache_folder)
    except UserError as error:
        raise UserError("\n".join(dict.fromkeys((*damaged, str(error))))) from error
    except Exception as error:  # a damaged record raises errors of many kinds
        reason = one_line(error)[:200] or type(error).__name__
        found = damaged or (f"tfds:{name} {split} cannot be read ({reason}); prepare the data set again",)
        raise UserError("\n".join(found)) from error


def _damaged_files(builder: Any, chosen: dict[str, str]) -> list[str]:
    """One sentence per tfrecord file with a wrong checksum, which reading single records does not compare."""
    if builder.info.file_format.value != "tfrecord":
        return []  # array_record compares checksums on every read
    instructions = [each for text in chosen.values() for each in builder.info.splits[text].file_instructions]
    files = list(dict.fromkeys(each.filename for each in instructions))
    problems = []
    for file in files:
        try:
            for _ in read_records(epath.Path(file), "tfrecord"):
                pass
        except UserError as error:
            problems.append(str(error))
    return problems


def _listed_split(split: str, source_name: str, listing: Listing, reading: Reading) -> SplitContents:
    """The contents of a listing: every image is read once, for its fingerprint, and decoded."""

    def read(index: int) -> bytes:
        (source,) = listing.sources_fn(np.array([index]))
        return epath.Path(os.fsdecode(source)).read_bytes() if listing.are_paths else source

    def pixels(index: int) -> np.ndarray:
        return decode_upright(read(index), int(listing.headers.orientations[index]), 3)

    def inspect(index: int, source: bytes) -> tuple[int, str, str | None]:
        try:
            encoded = epath.Path(os.fsdecode(source)).read_bytes() if listing.are_paths else source
        except OSError as error:
            refuse_lost(error, listing.where_fn(index))
            return 0, "", listing.problems[index] or f"the file cannot be read ({reason(error)})"
        problem = listing.problems[index] or _decoding_problem(encoded)
        return _fingerprint(encoded), image_format_of(encoded) or "other", problem

    num_images = len(listing.classes)
    found = []
    threads = reading.num_threads or os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for index in with_progress(range(num_images), num_images, f"checking {split}"):
            if index % _AT_ONCE == 0:
                indices = np.arange(index, min(index + _AT_ONCE, num_images))
                found += pool.map(inspect, indices.tolist(), listing.sources_fn(indices))
    fingerprints, formats, problems = zip(*found, strict=True) if found else ((), (), ())
    return SplitContents(
        split=split,
        source_name=source_name,
        classes=listing.classes,
        sizes=listing.headers.sizes,
        problems=list(problems),
        fingerprints=np.array(fingerprints, np.uint64),
        formats=Counter(kind for kind, problem in zip(formats, problems, strict=True) if problem is None),
        num_turned=int((listing.headers.orientations != 1).sum()),
        where_fn=listing.where_fn,
        pixels_fn=pixels,
        rows=listing.rows,
        values=listing.values,
    )


def _decoding_problem(encoded: bytes) -> str | None:
    try:
        decode_upright(encoded, 1, 3)
    except ValueError as error:
        return one_line(error)
    return None


def _fingerprint(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def find_copies(contents: Contents, *, num_examples: int = 20) -> Copies:
    """Images with the same bytes (in memory: the same pixels), except damaged ones."""
    parts = [(number, split.intact) for number, split in enumerate(contents.splits)]
    fingerprints = {number: contents.splits[number].fingerprints[intact] for number, intact in parts}
    names = [split.split for split in contents.splits]
    within = {names[number]: len(found) - len(np.unique(found)) for number, found in fingerprints.items()}
    across = {
        (names[first], names[second]): int(np.isin(fingerprints[second], fingerprints[first]).sum())
        for first, second in combinations(fingerprints, 2)
    }
    everything = np.concatenate([fingerprints[number] for number, _ in parts])
    owners = np.concatenate([np.full(len(intact), number) for number, intact in parts])
    indices = np.concatenate([intact for _, intact in parts])
    labels = np.concatenate([contents.splits[number].classes[intact] for number, intact in parts])
    order = np.lexsort((indices, owners, everything))
    starts = np.flatnonzero(np.r_[True, np.diff(everything[order]) != 0]) if len(order) else np.array([], int)
    ends = np.r_[starts[1:], len(order)]
    groups = [order[start:end] for start, end in zip(starts, ends, strict=True) if end - start > 1]
    two_classes = sum(len(group) for group in groups if len(np.unique(labels[group][labels[group] >= 0])) > 1)
    groups.sort(key=lambda group: (len(np.unique(owners[group])) == 1, owners[group[0]], indices[group[0]]))
    examples = [[(int(owners[one]), int(indices[one])) for one in group] for group in groups[:num_examples]]
    return Copies(within, across, two_classes, examples)
