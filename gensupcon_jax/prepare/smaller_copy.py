"""A smaller stored copy of a data set, for `gensupcon prepare --short-side`: a set of TFDS, in array_record files."""

import collections
import concurrent.futures
import json
import os
import re
import shlex
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from gensupcon_jax.data import folders, lists, tfds_sets
from gensupcon_jax.data.datasets import list_settings, source_of
from gensupcon_jax.data.decoding import read_image_file
from gensupcon_jax.data.encoded_sets import Reading, is_labeled
from gensupcon_jax.data.listing import Listing, progress_bar
from gensupcon_jax.disk import refuse_lost, writing
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import read_object
from gensupcon_jax.paths import failures, make_folder, whole_file
from gensupcon_jax.prepare.smaller_images import Smaller, smaller_image
from gensupcon_jax.text import counted, listed, reason, visible

_VERSION = "1.0.0"
_ORIGIN = "made_from.json"
_IMAGES_PER_FILE = 4096  # about 160 MB
_AHEAD_PER_THREAD = 8
_READ_AT_ONCE = 64


class Original(NamedTuple):
    """The data set that is copied: its `dataset.name`, the listing of each split, the names of the classes, and its place.

    notes: sentences of the source.
    """

    name: str
    listings: dict[str, Listing]
    class_names: tuple[str, ...]
    place: str = ""
    notes: tuple[str, ...] = ()


class Damage(NamedTuple):
    """What becomes of images that cannot be decoded; the fields are those of the config's `dataset`."""

    skip_damaged: bool = False
    max_damaged_share: float | int = 0.01


_ALL_INTACT = Damage()


class Copied(NamedTuple):
    """A finished copy.

    name: for `dataset.name=tfds:<name>`.  folder: for `dataset.folder`.  num_images: by split.  num_bytes: of all files.
    num_left_out: images that cannot be decoded.  original_bytes, copied_bytes, copied: bytes and number of the images that this
    call has read and written; fewer than all where it has resumed.
    """

    name: str
    folder: Path
    num_images: dict[str, int]
    num_bytes: int
    num_left_out: int
    original_bytes: int
    copied_bytes: int
    copied: int

    def described(self) -> str:
        """What was written, and how to train on it."""
        numbers = ", ".join(f"{num:,} of {split}" for split, num in self.num_images.items())
        left_out = f"; {counted(self.num_left_out, 'damaged image')} left out" if self.num_left_out else ""
        sizes = f"{self.num_bytes / 1e6:,.1f} MB"
        if self.copied:
            before, after = (num_bytes / self.copied / 1000 for num_bytes in (self.original_bytes, self.copied_bytes))
            sizes += f", {after:.1f} kB per image in place of {before:.1f} kB"
        fields = shlex.join([f"--config.dataset.name=tfds:{self.name}", f"--config.dataset.folder={self.folder}"])
        return f"{self.folder / self.name}: {numbers}{left_out}; {sizes}\nto train on it: {fields}"


class _File(NamedTuple):
    """One file of the copy, and the images of the original that it holds."""

    path: Path
    split: str
    numbers: np.ndarray


class _Written(NamedTuple):
    """A file of the copy: number of images, bytes of the originals and the copies (0 where it was there already), its size."""

    num: int
    original_bytes: int
    copied_bytes: int
    num_bytes: int


def read_original(name: str, reading: Reading, builder: Any = None) -> Original:
    """The listings of a data set of encoded images; builder: of a prepared `tfds:` set. UserError for other sources."""
    form, rest = source_of(name)
    if form == "folder:<path>":
        listings, class_names, notes, _ = folders.list_folder(
            rest, split_names=reading.split_names, cache_folder=reading.cache_folder
        )
        root = epath.Path(rest).expanduser()
        return Original(name, listings, class_names, os.fspath(root.parent), tuple(notes))
    if form == "tfds:<name>":
        if reading.label_kind != "class":
            raise UserError(
                f"--short_side is given, but dataset.label_kind is {reading.label_kind}; allowed: class, as a copy has one class "
                "per image"
            )
        keys, chosen = tfds_sets.keys_of(builder), tfds_sets.choose_splits(builder, rest, reading.split_names)
        listings = {
            split: tfds_sets.list_records(builder, keys, rest, text, reading.cache_folder)
            for split, text in chosen.items()
        }
        class_names = tuple(builder.info.features[keys.label].names)
        return Original(name, listings, class_names, os.fspath(builder.data_dir_root))
    if form in ("csv:<file>", "parquet:<file>"):
        found = lists.list_images(form.partition(":")[0], rest, list_settings(reading))
        if any(one.rows is not None or one.values is not None for one in found.listings.values()):
            raise UserError(
                f"--short_side is given, but the labels of {name} are not one class each; allowed: lists of classes"
            )
        place = os.fspath(epath.Path(rest).expanduser().parent)
        return Original(name, found.listings, tuple(found.class_names), place, tuple(found.notes))
    raise UserError(
        f"--short_side is given, but dataset.name is {name!r}; allowed with tfds:<name>, folder:<path>, csv:<file> and "
        "parquet:<file>"
    )


def copy_name(name: str, smaller: Smaller) -> str:
    """The name of the copy of `dataset.name`: folder:photos/Trees becomes trees_short256_q90."""
    form, _, rest = name.partition(":")
    last = rest.rstrip("/").split("/")[-1]
    source = last.split(":")[0] if form == "tfds" else Path(last).stem if form in ("csv", "parquet") else last
    word = re.sub(r"\W+", "_", source.lower(), flags=re.ASCII).strip("_") or "images"
    return f"{word}_short{smaller.short_side}_q{smaller.quality}"


def write_copy(
    original: Original,
    smaller: Smaller,
    into: Path,
    *,
    damage: Damage = _ALL_INTACT,
    num_threads: int | None = None,
) -> Copied:
    """Write the copy as a set of TFDS below the folder `into`; the same images with the same labels, in the same order.

    It is made in a hidden folder beside its place, file by file, and appears under its name when it is whole.  The same call
    resumes after an interruption.  Raises UserError where something else lies at its place, for damaged images, and where no
    image is larger than asked for.
    """
    name = copy_name(original.name, smaller)
    final, unfinished = into / name, into / f".{name}.unfinished"
    _refuse_existing(final, name, into)
    splits = {split: one for split, one in original.listings.items() if split == "train" or is_labeled(one.classes)}
    _refuse_small(original.name, splits, smaller)
    problems = [problem for one in splits.values() for problem in _problems(one)]
    if problems and not damage.skip_damaged:
        raise _damaged(problems)
    num_all = sum(len(one.classes) for one in splits.values())
    _refuse_many_damaged(len(problems), num_all, damage)
    folder = unfinished / _VERSION
    _begin(folder, original, splits, smaller)
    files = [file for split, one in splits.items() for file in _files(folder, name, split, len(one.classes))]
    written = _write_files(files, splits, smaller, damage, num_threads or os.cpu_count() or 1)
    of_split = {
        split: [one for file, one in zip(files, written, strict=True) if file.split == split] for split in splits
    }
    num_images = {split: sum(one.num for one in found) for split, found in of_split.items()}
    num_left_out = num_all - sum(num_images.values())
    _refuse_many_damaged(num_left_out, num_all, damage)
    with writing(final):
        for left in folder.glob(".*.unfinished"):
            left.unlink()  # of a process that was killed
        _write_metadata(folder, name, original, smaller, of_split)
        unfinished.rename(final)
    new = [one for one in written if one.original_bytes]
    return Copied(
        name=name,
        folder=into,
        num_images=num_images,
        num_bytes=sum(one.num_bytes for one in written),
        num_left_out=num_left_out,
        original_bytes=sum(one.original_bytes for one in new),
        copied_bytes=sum(one.copied_bytes for one in new),
        copied=sum(one.num for one in new),
    )


def _refuse_existing(final: Path, name: str, into: Path) -> None:
    if final.exists():
        raise UserError(
            f"{final} exists and is not overwritten; train on it with --config.dataset.name=tfds:{name} "
            f"{shlex.quote(f'--config.dataset.folder={into}')}, remove it, or choose another folder with --into"
        )


def _refuse_small(name: str, splits: dict[str, Listing], smaller: Smaller) -> None:
    largest = max(int(one.headers.sizes.min(1).max(initial=0)) for one in splits.values())
    if largest <= smaller.short_side:
        raise UserError(
            f"--short_side is {smaller.short_side}, but no image of {name} has a shorter side of more than {largest} pixels; "
            f"allowed: 16 to {largest - 1}, or train on {name} itself"
        )


def _problems(listing: Listing) -> list[str]:
    return [f"{listing.where_fn(number)}: {problem}" for number, problem in enumerate(listing.problems) if problem]


def _damaged(problems: list[str]) -> UserError:
    return UserError(
        f"{counted(len(problems), 'image')} cannot be decoded: {listed(problems)}; repair or remove what is damaged, or leave it "
        "out with --config.dataset.skip_damaged=True"
    )


def _refuse_many_damaged(num_damaged: int, num_images: int, damage: Damage) -> None:
    if num_damaged > damage.max_damaged_share * num_images:
        raise UserError(
            f"{num_damaged} of {num_images} images cannot be decoded, a share of {num_damaged / num_images:.3g}; allowed by "
            f"dataset.max_damaged_share: up to {damage.max_damaged_share:g}"
        )


def _begin(folder: Path, original: Original, splits: dict[str, Listing], smaller: Smaller) -> None:
    """Make the folder of an unfinished copy, or check that the one that is there is of the same images."""
    wanted = {
        "dataset.name": original.name,
        **smaller._asdict(),
        "images_per_file": _IMAGES_PER_FILE,
        "fingerprints": {split: one.fingerprint for split, one in splits.items()},
    }
    path = folder / _ORIGIN
    if not folder.exists() or not any(folder.iterdir()):
        make_folder(folder)
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(wanted, indent=2))
        return
    remedy = f"remove {folder.parent}, which is an unfinished copy, or choose another folder with --into"
    found = read_object(path, remedy) if path.exists() else {}
    differing = [field for field, value in wanted.items() if found.get(field) != value]
    if differing:
        raise UserError(
            f"{folder.parent} is the unfinished copy of other images ({', '.join(differing)} differ); remove it, or choose "
            "another folder with --into"
        )


def _files(folder: Path, name: str, split: str, num_images: int) -> list[_File]:
    starts = range(0, num_images, _IMAGES_PER_FILE)
    return [
        _File(
            folder / f"{name}-{split}.array_record-{number:05}-of-{len(starts):05}",
            split,
            np.arange(start, min(start + _IMAGES_PER_FILE, num_images)),
        )
        for number, start in enumerate(starts)
    ]


def _write_files(
    files: list[_File], splits: dict[str, Listing], smaller: Smaller, damage: Damage, threads: int
) -> list[_Written]:
    """Write those files that are not there yet; a file that is there is whole, as it appears when it is complete."""
    done = sum(len(file.numbers) for file in files if file.path.exists())
    total = sum(len(file.numbers) for file in files)
    written = []
    with (
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
        progress_bar(total, f"writing a copy with a shorter side of {smaller.short_side}", done=done) as bar,
    ):
        for file in files:
            if file.path.exists():
                written.append(_of_file(file.path))
                continue
            listing = splits[file.split]

            def copied(number: int, source: Any, listing: Listing = listing) -> tuple[int, bytes] | str:
                return _copied(listing, number, source, smaller)

            images = _in_order(pool, copied, _with_sources(listing, file.numbers), threads * _AHEAD_PER_THREAD)
            try:
                written.append(_write_file(file, listing, images, damage, bar.update))
            finally:
                images.close()
    return written


def _with_sources(listing: Listing, numbers: np.ndarray) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(numbers), _READ_AT_ONCE):
        some = numbers[start : start + _READ_AT_ONCE]
        yield from zip(some.tolist(), listing.sources_fn(some), strict=True)


def _in_order(
    pool: concurrent.futures.Executor, work_fn: Callable[..., Any], items: Iterable[tuple], ahead: int
) -> Generator[Any, None, None]:
    """The results of work_fn(*item), in order, at most `ahead` of them waiting."""
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(work_fn, *item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _copied(listing: Listing, number: int, source: bytes, smaller: Smaller) -> tuple[int, bytes] | str:
    """Bytes of the original and its smaller copy; or why it cannot be decoded."""
    if listing.problems[number]:
        return str(listing.problems[number])
    height, width = listing.headers.sizes[number].tolist()
    try:
        encoded = read_image_file(source) if listing.are_paths else source
        orientation, is_gray = int(listing.headers.orientations[number]), bool(listing.headers.gray[number])
        return len(encoded), smaller_image(encoded, (height, width), orientation, is_gray, smaller)
    except (*failures(), ValueError) as error:
        refuse_lost(error, listing.where_fn(number))
        return reason(error)


def _write_file(
    file: _File, listing: Listing, images: Iterable[tuple[int, bytes] | str], damage: Damage, advance_fn: Callable
) -> _Written:
    from array_record.python.array_record_module import ArrayRecordWriter

    num, before, after = 0, 0, 0
    with whole_file(file.path) as unfinished:
        writer = ArrayRecordWriter(os.fspath(unfinished), "group_size:1")
        try:
            for number, image in zip(file.numbers.tolist(), images, strict=True):
                advance_fn()
                if isinstance(image, str):
                    if not damage.skip_damaged:
                        raise _damaged([f"{listing.where_fn(number)}: {image}"])
                    continue
                num, before, after = num + 1, before + image[0], after + len(image[1])
                writer.write(_record(image[1], int(listing.classes[number])))
        finally:
            writer.close()
    return _Written(num, before, after, file.path.stat().st_size)


def _record(image: bytes, label: int) -> bytes:
    """The record of one image as TFDS writes it."""
    example = tfds_sets.record_class()()
    example.features.feature["image"].bytes_list.value.append(image)
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def _of_file(path: Path) -> _Written:
    """What is in a file that was there already."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    with ArrayRecordDataSource([os.fspath(path)]) as source:
        return _Written(len(source), 0, 0, path.stat().st_size)


def _write_metadata(
    folder: Path, name: str, original: Original, smaller: Smaller, of_split: dict[str, list[_Written]]
) -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(epath.Path(folder), dataset_name=name, filetype_suffix="array_record")
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[one.num for one in found],
            num_bytes=sum(one.num_bytes for one in found),
            filename_template=template.replace(split=split),
        )
        for split, found in of_split.items()
    ]
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=[visible(class_name) for class_name in original.class_names]),
    }
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(features),
        split_infos=infos,
        filename_template=template,
        version=_VERSION,
        check_data=False,
        description=f"{original.name} with a shorter side of {smaller.short_side}, JPEG quality {smaller.quality}",
        supervised_keys=("image", "label"),
    )
