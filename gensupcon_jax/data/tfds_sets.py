"""Image-classification data sets of TensorFlow Datasets: in memory where they are small, else read record by record."""

import concurrent.futures
import contextlib
import os
import shlex
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax import paths
from gensupcon_jax.data.cache import cached, size_and_time
from gensupcon_jax.data.headers import HEADERS_VERSION, read_header
from gensupcon_jax.data.listing import Listing, headers_as_arrays, headers_from_arrays, progress_bar, with_progress
from gensupcon_jax.data.tfds_labels import SeveralLabels, several_labels_of
from gensupcon_jax.data.tfds_network import missing_downloads, unreachable
from gensupcon_jax.disk import NotWritten, refuse_lost, writing
from gensupcon_jax.errors import UserError
from gensupcon_jax.slow import said_if_slow
from gensupcon_jax.text import one_line

_READERS = 16  # threads that wait for the disk
_SCANNED_AT_ONCE = 256
_DECODED_AT_ONCE = 512
_FEW = 16  # records
_TFRECORD_HEADER, _TFRECORD_FOOTER = 12, 4  # length and its checksum; checksum of the data


class Keys(NamedTuple):
    """The names of the image and of its class in the data set's features; several: in place of the class."""

    image: str
    label: str
    several: SeveralLabels | None = None


class Records(NamedTuple):
    """The records of one split: their number, the serialized records of some numbers, and where a record is."""

    num_records: int
    read_fn: Callable[[np.ndarray], Sequence[bytes]]
    where_fn: Callable[[int], str]


def open_builder(
    name: str, folder: str | None, *, file_format: str | None = None, label_kind: str = "class"
) -> tuple[Any, Keys]:
    """The TFDS builder of `tfds:<name>` and its keys; nothing is downloaded.

    Raises UserError for unknown data sets and for data sets that are not images with one class each, or with several labels
    each for this label_kind.
    """
    import tensorflow_datasets as tfds

    with tfds_reasons(name):
        settings: dict[str, Any] = {} if file_format is None else {"file_format": file_format}
        builder = tfds.builder(name, data_dir=folder, **settings)
    features: Any = builder.info.features
    keys = keys_of(builder)
    found = sorted(features) if hasattr(features, "keys") else [type(features).__name__]
    has_images = keys.image in found and isinstance(features[keys.image], tfds.features.Image)
    if label_kind == "several" and has_images:
        keys = keys._replace(several=several_labels_of(features, name))
    elif not has_images or keys.label not in found or not isinstance(features[keys.label], tfds.features.ClassLabel):
        raise UserError(
            f"dataset.name is 'tfds:{name}', with {found}; allowed: data sets of images with one class each"
        )
    if features[keys.image].np_dtype != np.uint8:
        raise UserError(
            f"dataset.name is 'tfds:{name}', whose images are {features[keys.image].np_dtype}; allowed: uint8"
        )
    return builder, keys


def open_prepared(name: str, folder: str | None, label_kind: str = "class") -> tuple[Any, Keys]:
    """The builder of `tfds:<name>` and its keys, downloaded and prepared if necessary; errors as of `open_builder`."""
    builder, keys = open_builder(name, folder, label_kind=label_kind)
    by_record = None in builder.info.features[keys.image].shape or keys.several is not None
    if by_record and default_format(builder):
        builder, keys = open_builder(name, folder, file_format=default_format(builder), label_kind=label_kind)
    prepare(builder, name)
    with said_if_slow("importing TensorFlow", _print_line):
        import tensorflow  # noqa: F401  (before the bars of what it reads, whose rates it would distort)
    return builder, keys


def _print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def keys_of(builder: Any) -> Keys:
    """The names that the data set gives its image and its class."""
    image, label = (builder.info.supervised_keys or ("image", "label"))[:2]
    return Keys(image, label)


def prepare(builder: Any, name: str, download_config: Any = None) -> None:
    """Download and prepare the data set if necessary; UserError with TFDS's reason, or where its files cannot be reached."""
    if not _is_prepared(builder):
        _refuse_without_network(builder, name, download_config)
    with tfds_reasons(name), writing(builder.data_dir_root):
        builder.download_and_prepare(download_config=download_config)
    if not builder.info.splits:
        raise UserError(f"dataset.name is 'tfds:{name}', prepared in {builder.data_path} without any split")


def _is_prepared(builder: Any) -> bool:
    from etils import epath

    return epath.Path(builder.data_path).exists()


def _refuse_without_network(builder: Any, name: str, download_config: Any) -> None:
    if getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None):  # TFDS itself names files that are missing, at once
        return
    reason = unreachable(missing_downloads(builder, download_config))
    if reason:
        raise UserError(
            f"dataset.name is 'tfds:{name}', which is not prepared in {builder.data_dir_root}, and the files for it cannot be "
            f"downloaded ({reason}); set dataset.folder to a folder with the prepared data set, or prepare it with "
            "gensupcon prepare where there is a network"
        )


def default_format(builder: Any) -> str | None:
    """array_record for data sets that are not prepared yet, None for others.

    It has random access, which the exact order of the images needs.
    """
    if Path(os.fspath(builder.data_path)).exists() or "://" in os.fspath(builder.data_path):
        return None
    return "array_record"


def conversion_command(name: str, folder: str | None) -> str:
    """The command that converts this prepared data set to array_record; independent of the recipe."""
    place = [] if folder is None else [f"--config.dataset.folder={folder}"]
    fields = ["--config", "common", f"--config.dataset.name=tfds:{name}", *place]
    return shlex.join(["gensupcon", "prepare", *fields, "--file_format=array_record"])


def choose_splits(builder: Any, name: str, wanted: dict[str, str | None]) -> dict[str, str]:
    """The TFDS split for each of train, validation and test; missing splits are left out.

    wanted: in TFDS's syntax, such as "train[:90%]"; None: the split of that name, unless it is wanted for
    another.  Raises UserError for unknown splits.
    """
    present = list(builder.info.splits)
    chosen = {}
    for split, text in wanted.items():
        if text is None:
            if split in present and split not in wanted.values():
                chosen[split] = split
            continue
        with _split_reasons(f"dataset.{split}_split is {text!r}", present):
            if builder.info.splits[text].num_examples == 0:
                raise ValueError("it has no images")
        chosen[split] = text
    if "train" not in chosen:
        raise UserError(
            f"dataset.name is 'tfds:{name}', with the splits {sorted(present)}; allowed: data sets with a train split, "
            "or set dataset.train_split"
        )
    return chosen


@contextlib.contextmanager
def _split_reasons(found: str, present: list[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # TFDS's parser raises many kinds
        reason = one_line(error)[:200]
        raise UserError(
            f"{found}, which TFDS does not accept ({reason}); allowed: {', '.join(present)}, or parts such as train[:90%]"
        ) from error


def fits_memory(builder: Any, keys: Keys, splits: dict[str, str], limit_mib: float | int) -> bool:
    """Whether all images are squares of one size that together fit the limit, decoded."""
    shape = builder.info.features[keys.image].shape
    if None in shape or shape[0] != shape[1] or shape[2] not in (1, 3):
        return False
    num_images = sum(builder.info.splits[split].num_examples for split in splits.values())
    return num_images * int(np.prod(shape)) <= limit_mib * 2**20


def read_arrays(builder: Any, keys: Keys, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and class numbers of a split, in the order of its files; the same for both file formats.

    Raises UserError for files that cannot be read, and for fewer or more records than the data set should have.
    """
    num_images = builder.info.splits[split].num_examples
    images = np.empty((num_images, *builder.info.features[keys.image].shape), np.uint8)
    labels, done = np.empty(num_images, np.int64), 0
    with _record_reasons(name, split), progress_bar(num_images, f"decoding {name} {split} once") as bar:
        for some_images, some_labels in _decoded_batches(builder, keys, name, split):
            place = slice(done, done + len(some_labels))
            if place.stop > num_images:
                raise ValueError(f"more than {num_images} records")
            images[place], labels[place], done = some_images, some_labels, place.stop
            bar.update(len(some_labels))
        if done < num_images:
            raise ValueError(f"{done} of {num_images} records")
    return images, labels


def _decoded_batches(builder: Any, keys: Keys, name: str, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(images, class numbers) of consecutive records, decoded by TensorFlow in parallel: TFDS's data sources use PIL, whose
    JPEGs differ by one gray value."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    if builder.info.file_format.value == "array_record":  # not supported by as_dataset
        records = _array_records(builder.info.splits[split].file_instructions)

        def blocks() -> Iterator[list[bytes]]:
            for start in range(0, records.num_records, _DECODED_AT_ONCE):
                yield list(records.read_fn(np.arange(start, min(start + _DECODED_AT_ONCE, records.num_records))))

        found = tf.data.Dataset.from_generator(blocks, output_signature=tf.TensorSpec([None], tf.string)).unbatch()
        found = found.map(builder.info.features.deserialize_example, tf.data.AUTOTUNE, deterministic=True)
    else:
        # The default interleaves 16 files, unlike array_record, and keeps a second copy of small data sets.
        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        found = builder.as_dataset(split=split, shuffle_files=False, read_config=in_order)
    # Few at once: a signal is seen between two batches.
    pairs = found.map(lambda features: (features[keys.image], features[keys.label])).batch(_DECODED_AT_ONCE)
    found_pairs: Any = pairs.prefetch(2).as_numpy_iterator()
    yield from found_pairs


@contextlib.contextmanager
def _record_reasons(name: str, split: str) -> Iterator[None]:
    try:
        yield
    except (*paths.failures(), ValueError, RuntimeError) as error:  # the last two are array_record's
        refuse_lost(error, f"the split {split} of tfds:{name}")
        raise UserError(
            f"dataset.name is 'tfds:{name}', whose split {split} cannot be read ({one_line(error)[:300]}); "
            "prepare the data set again, or restore its files from a copy"
        ) from error


def list_records(builder: Any, keys: Keys, name: str, split: str, cache_folder: paths.Path | None) -> Listing:
    """All images of a split, to be read record by record from array_record or tfrecord files.

    The first call reads each record once for its class and header, and keeps them in cache_folder.
    Raises UserError for files of another format and for truncated files.
    """
    instructions = builder.info.splits[split].file_instructions
    file_format = builder.info.file_format.value
    # Without folder and file format: a copy and a conversion have the same records in the same order.
    parts = [(Path(i.filename).name.replace(f".{file_format}-", "-"), i.skip, i.take) for i in instructions]
    fingerprint = f"{builder.info.full_name} {split} {parts}"
    versions = [size_and_time(Path(instruction.filename)) for instruction in instructions]
    if keys.several is not None:
        fingerprint += f" {keys.several.key}"
    key = f"headers {HEADERS_VERSION} {fingerprint} {file_format} {[i.filename for i in instructions]} {versions}"

    def scan() -> dict[str, np.ndarray]:
        index = _tfrecord_index(instructions, name) if file_format == "tfrecord" else None
        records = _records(instructions, file_format, index, name)
        labels, headers = [], []
        for number in with_progress(range(records.num_records), records.num_records, f"reading {name} {split} once"):
            if number % _SCANNED_AT_ONCE == 0:
                block = records.read_fn(np.arange(number, min(number + _SCANNED_AT_ONCE, records.num_records)))
            image, label = _parse(block[number % _SCANNED_AT_ONCE], keys)
            labels.append(label)
            headers.append(read_header(image))
        arrays = headers_as_arrays(headers)
        if keys.several is None:
            arrays["classes"] = np.array(labels, np.int32)
        else:
            rows = np.array(labels, np.uint8).reshape(-1, len(keys.several.names))
            arrays |= {"rows": rows, "classes": np.where(rows.any(axis=1), rows.argmax(axis=1), -1).astype(np.int32)}
        return arrays if index is None else arrays | {"index": index}

    arrays = cached(cache_folder, f"tfds_{name}_{split}", key, scan)
    records = _records(instructions, file_format, arrays.get("index"), name)
    headers, problems = headers_from_arrays(arrays)
    return Listing(
        sources_fn=lambda numbers: [_parse(record, keys)[0] for record in records.read_fn(numbers)],
        where_fn=lambda number: f"tfds:{name} {split}: {records.where_fn(number)}",
        are_paths=False,
        classes=arrays["classes"],
        headers=headers,
        problems=problems,
        fingerprint=fingerprint,
        cache_key=key,
        rows=arrays["rows"].astype(np.float32) if "rows" in arrays else None,
    )


def record_class() -> Any:
    """The class of the records, `tf.train.Example`."""
    # First the package: a thread that imports it, to decode a PNG, would wait for the part of it that this one imports.
    import tensorflow  # noqa: F401
    from tensorflow.core.example.example_pb2 import Example

    return Example


def _parse(record: bytes, keys: Keys) -> tuple[bytes, Any]:
    """The image of a record, and its class number, or its row of several labels."""
    feature = record_class().FromString(record).features.feature
    if keys.several is not None:
        return feature[keys.image].bytes_list.value[0], keys.several.row(feature[keys.several.key])
    return feature[keys.image].bytes_list.value[0], feature[keys.label].int64_list.value[0]


def _records(instructions: list, file_format: str, index: np.ndarray | None, name: str) -> Records:
    if file_format == "tfrecord" and index is not None:
        return _tfrecords([i.filename for i in instructions], index)
    if file_format == "array_record":
        return _array_records(instructions)
    raise UserError(
        f"dataset.name is 'tfds:{name}', prepared as {file_format}; allowed: array_record, tfrecord. Set dataset.folder to "
        "another folder: gensupcon prepare, with the same --config, prepares it there"
    )


def _array_records(instructions: list) -> Records:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    source = ArrayRecordDataSource(instructions)

    def where(number: int) -> str:
        return f"record {number}"

    def read(numbers: np.ndarray) -> Sequence[bytes]:
        # `__getitems__` starts threads at each call, which takes longer than to read a few.
        return [source[number] for number in numbers] if len(numbers) <= _FEW else source.__getitems__(numbers.tolist())

    return Records(len(source), read, where)


def _tfrecords(files: list[str], index: np.ndarray) -> Records:
    """index [record, 3]: number of the file, first byte and length of the data."""
    pool = concurrent.futures.ThreadPoolExecutor(_READERS)

    def read_one(row: np.ndarray) -> bytes:
        with _open(files[row[0]]) as file:
            file.seek(int(row[1]))
            return file.read(int(row[2]))

    def where(number: int) -> str:
        return f"record {number}, {Path(files[index[number, 0]]).name} from byte {index[number, 1]}"

    return Records(len(index), lambda numbers: list(pool.map(read_one, index[numbers])), where)


def _tfrecord_index(instructions: list, name: str) -> np.ndarray:
    """Start and length of the data of each record; a tfrecord file has no index."""
    rows = []
    for number, instruction in enumerate(instructions):
        spans = _record_spans(instruction.filename, name)
        stop = None if instruction.take < 0 else instruction.skip + instruction.take
        rows += [(number, start, length) for start, length in spans[instruction.skip : stop]]
    return np.array(rows, np.int64).reshape(-1, 3)


def _record_spans(path: str, name: str) -> list[tuple[int, int]]:
    spans, place = [], 0
    with _open(path) as file:
        size = file.seek(0, os.SEEK_END)
        while place < size:
            file.seek(place)
            header = file.read(_TFRECORD_HEADER)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _TFRECORD_HEADER else size
            end = place + _TFRECORD_HEADER + length + _TFRECORD_FOOTER
            if end > size:
                raise UserError(
                    f"dataset.name is 'tfds:{name}': {path} ends within record {len(spans)}; "
                    "prepare the data set again, or restore the file from a copy"
                )
            spans.append((place + _TFRECORD_HEADER, length))
            place = end
    return spans


def _open(path: str) -> Any:
    from etils import epath

    return epath.Path(path).open("rb")


@contextlib.contextmanager
def tfds_reasons(name: str) -> Iterator[None]:
    """Turn every error of TFDS, from an unknown name to a failed download, into a UserError of one line."""
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        # Of an unknown name TFDS lists all that it has, hundreds of them.
        reason = one_line(error).partition(" Available datasets:")[0][:500] or type(error).__name__
        raise UserError(
            f"dataset.name is 'tfds:{name}', which TFDS cannot load ({reason}); "
            "see tensorflow.org/datasets/catalog for names; dataset.folder is the folder of prepared data sets"
        ) from error
