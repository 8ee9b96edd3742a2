"""Three splits from listings of encoded images: damaged images, sizes, statistics, and cuts of missing splits."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax.data.cache import cached
from gensupcon_jax.data.center import center_share_of
from gensupcon_jax.data.cuts import SPLIT_SEED, check_fractions, cut_sizes, is_useless, num_to_cut_from
from gensupcon_jax.data.inspection import examine
from gensupcon_jax.data.label_kinds import cut_by_labels, refuse_one_label
from gensupcon_jax.data.listing import Listing
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import LocalPath, Path
from gensupcon_jax.text import listed

_STATISTICS_IMAGES = 10_000  # larger encoded sets: mean and standard deviation of a fixed random sample of this size
_USUAL_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # of the input of the network, for images that differ in size


class Reading(NamedTuple):
    """How a data set is read; the fields are those of the config's `dataset`.

    label_kind: what the labels of the source must be, as in `Dataset`.  path_column, label_columns, split_column: of a list of
    images; None: those of the usual names.  cache_folder: for sizes, labels and statistics, which the next start reuses; None:
    no cache.  arrays_folder: for small data sets, decoded, which all runs of a user share; None: no cache.
    """

    folder: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: float | int = 0.1
    test_fraction: float | int = 0.2
    image_size: int | None = None
    channels: int | None = None
    center_share: float | int | None = None
    memory_limit: float | int = 2048
    skip_damaged: bool = False
    max_damaged_share: float | int = 0.01
    num_threads: int | None = None
    label_kind: str = "class"
    path_column: str | None = None
    label_columns: str | tuple | list | None = None
    split_column: str | None = None
    cache_folder: Path | None = None
    arrays_folder: LocalPath | None = None

    @property
    def split_names(self) -> dict[str, str | None]:
        """The name that the source gives each split; None: the usual name."""
        return {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}


def is_labeled(classes: np.ndarray) -> bool:
    """Whether a split has labels: TFDS sets them to -1 where there are none."""
    return bool(len(classes) > 0 and classes.max() >= 0)


def evaluated_splits(given: dict[str, Any]) -> dict[str, Any]:
    """The splits to evaluate on: without a test split, the validation split becomes the test split."""
    given = dict(given)
    if "test" not in given and "validation" in given:
        given["test"] = given.pop("validation")
    return given


class EncodedSplits(NamedTuple):
    """The splits, mean and std of training, one line per image that was left out, and the fingerprint.

    splits: "train", "test", and "validation" unless all images are trained on.
    """

    splits: dict[str, EncodedSplit]
    statistics: tuple[np.ndarray, np.ndarray]
    damaged: tuple[str, ...]
    fingerprint: str


def from_listings(name: str, listings: dict[str, Listing], num_classes: int, reading: Reading) -> EncodedSplits:
    """Splits of the images that can be decoded, with one input size; missing splits are cut from training.

    Statistics are of the training split before the cuts.  Raises UserError for labels out of range, for images that cannot be
    decoded (unless `skip_damaged`, or for too many of them), and for splits that cannot be cut.
    """
    fingerprint = " ".join(f"{split} {listing.fingerprint}" for split, listing in sorted(listings.items()))
    for split, listing in listings.items():
        _check_class_range(listing, split, name, num_classes)
    wholes = {split: listing.split(num_classes) for split, listing in listings.items()}
    problems = {split: list(listing.problems) for split, listing in listings.items()}
    wholes = _with_common_shape(wholes, problems, reading)
    key = " ".join(f"{split} {listing.cache_key}" for split, listing in sorted(listings.items()))
    statistics, decoded = _examined(name, wholes, problems, reading, key)
    for where, found in decoded.items():
        problems[where] = [old or new for old, new in zip(problems[where], found, strict=True)]
    damaged = tuple(
        f"{split.where(index)}: {problem}"
        for where, split in wholes.items()
        for index, problem in enumerate(problems[where])
        if problem
    )
    _check_damage(damaged, sum(map(len, problems.values())), reading)
    intact = {where: split.subset(_intact(problems[where])) for where, split in wholes.items()}
    splits = _with_cuts(evaluated_splits(intact), reading)
    refuse_one_label(_labels(splits["train"], reading), "train", reading.label_kind)
    return EncodedSplits(splits, statistics, damaged, fingerprint)


def _with_common_shape(
    wholes: dict[str, EncodedSplit], problems: dict[str, list], reading: Reading
) -> dict[str, EncodedSplit]:
    """The splits with one image size and one number of channels, derived from the data if they are not given."""
    sizes = {where: split.headers.sizes[_intact(problems[where])] for where, split in wholes.items()}
    is_gray = all(split.headers.gray[_intact(problems[where])].all() for where, split in wholes.items())
    image_size = reading.image_size or _usual_size(sizes["train"])
    seen = {
        "image_size": image_size,
        "num_channels": reading.channels or (1 if is_gray else 3),
        "center_share": center_share_of(reading.center_share, np.concatenate([*sizes.values()]), image_size),
        "num_threads": reading.num_threads,
    }
    return {where: dataclasses.replace(split, **seen) for where, split in wholes.items()}


def _intact(problems: list[str | None]) -> np.ndarray:
    return np.flatnonzero([problem is None for problem in problems])


def _usual_size(sizes: np.ndarray) -> int:
    """The common size of square images; else the largest usual size that half of the images reach."""
    if len(sizes) == 0:
        return _USUAL_SIZES[-1]
    if (sizes == sizes[0, 0]).all() and sizes[0, 0] <= _USUAL_SIZES[-1]:
        return int(sizes[0, 0])
    median = np.median(sizes.min(1))
    return max([size for size in _USUAL_SIZES if size <= median], default=_USUAL_SIZES[0])


def _examined(
    name: str, wholes: dict[str, EncodedSplit], problems: dict[str, list], reading: Reading, key: str
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, list[str | None]]]:
    """Statistics of training, and the images that decoding finds damaged: of all images where damaged ones may be
    skipped, else of the sample for the statistics."""
    sampled = {}
    for where, split in wholes.items():
        intact = _intact(problems[where])
        if where != "train" and not reading.skip_damaged:
            continue
        if not reading.skip_damaged and len(intact) > _STATISTICS_IMAGES:
            order = np.random.Philox(key=[SPLIT_SEED, len(intact)]).random_raw(len(intact)).argsort(kind="stable")
            intact = np.sort(intact[order[:_STATISTICS_IMAGES]])
        sampled[where] = (split, intact)

    def make() -> dict[str, np.ndarray]:
        arrays = {}
        for where, (split, indices) in sampled.items():
            found = examine(split, indices, f"decoding {len(indices)} images of {where} once")
            arrays[where] = np.array([problem or "" for problem in found.problems], str)
            if where == "train":
                arrays |= {"mean": found.mean, "std": found.std}
        return arrays

    channels = wholes["train"].num_channels
    arrays = cached(reading.cache_folder, f"decoded_{name}", f"{key} {reading.skip_damaged} {channels}", make)
    decoded = {}
    for where, (_, indices) in sampled.items():
        decoded[where] = [None] * len(problems[where])
        for index, problem in zip(indices, arrays[where], strict=True):
            decoded[where][index] = str(problem) or None
    return (arrays["mean"], arrays["std"]), decoded


def _check_damage(damaged: tuple[str, ...], num_images: int, reading: Reading) -> None:
    if not damaged:
        return
    found = f"{len(damaged)} of {num_images} images cannot be decoded: {listed(damaged)}"
    if not reading.skip_damaged:
        raise UserError(f"{found}; repair or remove them, or skip them with dataset.skip_damaged=True")
    if len(damaged) > reading.max_damaged_share * num_images:
        raise UserError(
            f"{found}; a share of {len(damaged) / num_images:.3g}; allowed by dataset.max_damaged_share: "
            f"up to {reading.max_damaged_share:g}"
        )


def _check_class_range(listing: Listing, where: str, name: str, num_classes: int) -> None:
    lowest = 0 if where != "train" and listing.rows is None else -1  # training images may lack a label
    wrong = np.flatnonzero((listing.classes < lowest) | (listing.classes >= num_classes))
    if len(wrong):
        raise UserError(
            f"{name}: {len(wrong)} labels of {where} lie outside 0..{num_classes - 1}, first {listing.classes[wrong[0]]} "
            f"of {listing.where_fn(int(wrong[0]))}; correct them, or choose another split"
        )


def _labels(split: EncodedSplit, reading: Reading) -> np.ndarray:
    """What the checks and cuts of this kind of labels look at: one class per image, rows, or values."""
    found = {"class": split.classes, "several": split.rows, "value": split.values}[reading.label_kind]
    if found is None:
        raise TypeError(f"label_kind is {reading.label_kind!r}, and the listing has no such labels")
    return found


def _with_cuts(given: dict[str, EncodedSplit], reading: Reading) -> dict[str, EncodedSplit]:
    """The splits, with missing test and validation splits cut from training, stratified and deterministic."""
    given = dict(given)
    fractions = {"test": reading.test_fraction, "validation": reading.validation_fraction}
    fractions = {where: fraction for where, fraction in fractions.items() if where not in given}
    check_fractions(fractions)
    classes, num_images = given["train"].classes, given["train"].num_images
    num_images = num_to_cut_from(classes) if reading.label_kind == "class" else num_images
    for where, fraction in fractions.items():
        if fraction == 0 or (where == "validation" and is_useless(given["train"].classes, reading.label_kind)):
            continue
        train, classes = given["train"], given["train"].classes
        # Of few images an image of each class, rather than an error: there is no fraction that a user of a folder chose.
        smallest = cut_sizes(classes[classes >= 0])[0] if reading.label_kind == "class" else 1
        size = max(round(fraction * num_images), smallest)
        given["train"], given[where] = cut_by_labels(train, _labels(train, reading), size, where, reading.label_kind)
    return given
