"""Encoded images from their listings to three splits: damage, sizes, statistics, and the cuts that are missing."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax.data.cache import cached
from gensupcon_jax.data.cuts import SPLIT_SEED, check_fractions, cut_off, refuse_one_class
from gensupcon_jax.data.inspection import examine
from gensupcon_jax.data.listing import Listing
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.text import listed

_STATISTICS_IMAGES = 10_000  # mean and standard deviation of larger encoded sets are those of so many, drawn once
_USUAL_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # of what the network sees, for images that differ in size


class Reading(NamedTuple):
    """How a set of encoded images is read; names are those of the config's `dataset` fields.

    cache_folder: where sizes, labels and statistics are kept for the next start; None: nowhere.
    """

    folder: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: float | int = 0.1
    test_fraction: float | int = 0.2
    image_size: int | None = None
    center_share: float | int = 0.875
    memory_limit: float | int = 2048
    skip_damaged: bool = False
    max_damaged_share: float | int = 0.01
    num_threads: int | None = None
    cache_folder: Path | None = None

    @property
    def split_names(self) -> dict[str, str | None]:
        """By split, what the source calls it; None: the usual name."""
        return {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}


def is_labeled(classes: np.ndarray) -> bool:
    """Whether a split has labels: TFDS gives -1 where there are none."""
    return bool(len(classes) > 0 and classes.max() >= 0)


def judged_splits(given: dict[str, Any]) -> dict[str, Any]:
    """Where there is no test split, validation is tested on, and validation is cut from training."""
    given = dict(given)
    if "test" not in given and "validation" in given:
        given["test"] = given.pop("validation")
    return given


class EncodedSplits(NamedTuple):
    """The three splits, mean and std of training, a line for each image that was left out, and the fingerprint."""

    splits: dict[str, EncodedSplit]
    statistics: tuple[np.ndarray, np.ndarray]
    damaged: tuple[str, ...]
    fingerprint: str


def from_listings(name: str, listings: dict[str, Listing], num_classes: int, reading: Reading) -> EncodedSplits:
    """Splits of the images that can be decoded, all of one size for the network; missing ones are cut from training.

    Statistics are of the training split before the cuts.  Raises UserError for labels out of range, for images that cannot be
    decoded unless `skip_damaged`, for too many of them, and for splits that cannot be cut.
    """
    fingerprint = " ".join(f"{split} {listing.fingerprint}" for split, listing in sorted(listings.items()))
    for split, listing in listings.items():
        _check_class_range(listing, split, name, num_classes)
    wholes = {split: listing.split(num_classes) for split, listing in listings.items()}
    problems = {split: list(listing.problems) for split, listing in listings.items()}
    wholes = _seen_alike(wholes, problems, reading)
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
    _judge_damage(damaged, sum(map(len, problems.values())), reading)
    sound = {where: split.subset(_sound(problems[where])) for where, split in wholes.items()}
    splits = _with_cuts(judged_splits(sound), reading)
    refuse_one_class(splits["train"].classes, "train")
    return EncodedSplits(splits, statistics, damaged, fingerprint)


def _seen_alike(
    wholes: dict[str, EncodedSplit], problems: dict[str, list], reading: Reading
) -> dict[str, EncodedSplit]:
    """With one image size and one number of channels, which follow from the data."""
    sizes = wholes["train"].headers.sizes[_sound(problems["train"])]
    is_gray = all(split.headers.gray[_sound(problems[where])].all() for where, split in wholes.items())
    seen = {
        "image_size": reading.image_size or _usual_size(sizes),
        "num_channels": 1 if is_gray else 3,
        "center_share": reading.center_share,
        "num_threads": reading.num_threads,
    }
    return {where: dataclasses.replace(split, **seen) for where, split in wholes.items()}


def _sound(problems: list[str | None]) -> np.ndarray:
    return np.flatnonzero([problem is None for problem in problems])


def _usual_size(sizes: np.ndarray) -> int:
    """The one size of square images; else the largest usual one that half of the images fill."""
    if len(sizes) == 0:
        return _USUAL_SIZES[-1]
    if (sizes == sizes[0, 0]).all() and sizes[0, 0] <= _USUAL_SIZES[-1]:
        return int(sizes[0, 0])
    median = np.median(sizes.min(1))
    return max([size for size in _USUAL_SIZES if size <= median], default=_USUAL_SIZES[0])


def _examined(
    name: str, wholes: dict[str, EncodedSplit], problems: dict[str, list], reading: Reading, key: str
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, list[str | None]]]:
    """Statistics of training, and what decoding finds damaged: in all images where they may be skipped, else in those
    that the statistics rest on."""
    looked_at = {}
    for where, split in wholes.items():
        sound = _sound(problems[where])
        if where != "train" and not reading.skip_damaged:
            continue
        if not reading.skip_damaged and len(sound) > _STATISTICS_IMAGES:
            order = np.random.Philox(key=[SPLIT_SEED, len(sound)]).random_raw(len(sound)).argsort(kind="stable")
            sound = np.sort(sound[order[:_STATISTICS_IMAGES]])
        looked_at[where] = (split, sound)

    def make() -> dict[str, np.ndarray]:
        arrays = {}
        for where, (split, indices) in looked_at.items():
            found = examine(split, indices, f"decoding {len(indices)} images of {where} once")
            arrays[where] = np.array([problem or "" for problem in found.problems], str)
            if where == "train":
                arrays |= {"mean": found.mean, "std": found.std}
        return arrays

    channels = wholes["train"].num_channels
    arrays = cached(reading.cache_folder, f"decoded_{name}", f"{key} {reading.skip_damaged} {channels}", make)
    decoded = {}
    for where, (_, indices) in looked_at.items():
        decoded[where] = [None] * len(problems[where])
        for index, problem in zip(indices, arrays[where], strict=True):
            decoded[where][index] = str(problem) or None
    return (arrays["mean"], arrays["std"]), decoded


def _judge_damage(damaged: tuple[str, ...], num_images: int, reading: Reading) -> None:
    if not damaged:
        return
    found = f"{len(damaged)} of {num_images} images cannot be decoded: {listed(damaged)}"
    if not reading.skip_damaged:
        raise UserError(f"{found}; repair or remove them, or leave them out with dataset.skip_damaged=True")
    if len(damaged) > reading.max_damaged_share * num_images:
        raise UserError(
            f"{found}; that is a share of {len(damaged) / num_images:.3g}, allowed by dataset.max_damaged_share: "
            f"up to {reading.max_damaged_share:g}"
        )


def _check_class_range(listing: Listing, where: str, name: str, num_classes: int) -> None:
    wrong = np.flatnonzero((listing.classes < 0) | (listing.classes >= num_classes))
    if len(wrong):
        raise UserError(
            f"{name}: {len(wrong)} labels of {where} lie outside 0..{num_classes - 1}, first {listing.classes[wrong[0]]} "
            f"of {listing.where_fn(int(wrong[0]))}; correct them, or choose another split"
        )


def _with_cuts(given: dict[str, EncodedSplit], reading: Reading) -> dict[str, EncodedSplit]:
    """With test and validation cut off training where there are none, stratified and always the same ones."""
    given = dict(given)
    fractions = {"test": reading.test_fraction, "validation": reading.validation_fraction}
    fractions = {where: fraction for where, fraction in fractions.items() if where not in given}
    check_fractions(fractions)
    num_images = given["train"].num_images
    for where, fraction in fractions.items():
        given["train"], given[where] = cut_off(given["train"], round(fraction * num_images), where)
    return given
