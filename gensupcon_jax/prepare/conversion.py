"""Conversion of a prepared TFDS data set to another file format; the old files are kept."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from gensupcon_jax.data.decoding import tensorflow_reason
from gensupcon_jax.data.listing import with_progress
from gensupcon_jax.data.tfds_sets import tfds_reasons
from gensupcon_jax.disk import writing
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import TEXTS, read_object
from gensupcon_jax.paths import as_path, write_whole

FORMATS = ("array_record", "tfrecord")
_INFO = "dataset_info.json"
_READ_AT_ONCE = 64


class Shard(NamedTuple):
    """One file of a split, in the old and in the new format, and its number of records."""

    old: epath.Path
    new: epath.Path
    num_records: int


def convert(builder: Any, name: str, file_format: str) -> list[str]:
    """Convert the data set to file_format; returns the paths of the files of the old format.

    The new files are beside the old ones, with the names that TFDS uses; each is written atomically.  dataset_info.json is
    replaced last: until then the data set is unchanged.  Files of an interrupted conversion are reused.
    Raises UserError for other formats and for damaged files.
    """
    old_format = builder.info.file_format.value
    if old_format not in FORMATS:
        raise UserError(
            f"tfds:{name} is prepared as {old_format} in {builder.data_path}; allowed: {', '.join(FORMATS)}. "
            "Prepare it into another dataset.folder"
        )
    shards = _shards(builder, file_format)
    for shard in shards:
        if not shard.old.exists():
            raise UserError(
                f"tfds:{name}: {shard.old} does not exist; restore it from a copy, or prepare the data set again"
            )
    waiting = [shard for shard in shards if not _is_done(shard, old_format, file_format)]
    total = sum(shard.num_records for shard in waiting)
    progress = iter(with_progress(range(total), total, f"converting {name} to {file_format}"))
    for shard in waiting:
        with writing(shard.new):
            _convert_one(shard, old_format, file_format, progress)
    with tfds_reasons(name):
        _write_info(epath.Path(builder.data_path) / _INFO, old_format, file_format)
    return [os.fspath(shard.old) for shard in shards]


def read_records(path: str | os.PathLike[str], file_format: str) -> Iterator[bytes]:
    """The records of a file, in order; UserError where it is damaged."""
    try:
        yield from _READERS[file_format](os.fspath(path))
    except Exception as error:  # of kinds that depend on the library of the format
        raise UserError(
            f"{path} is damaged ({tensorflow_reason(error)}); restore it from a copy, or prepare the data set again"
        ) from error


def _shards(builder: Any, file_format: str) -> list[Shard]:
    shards = []
    for split in builder.info.splits.values():
        template = split.filename_template
        other = template.replace(filetype_suffix=file_format)
        for index, num_records in enumerate(split.shard_lengths):
            place = {"shard_index": index, "num_shards": len(split.shard_lengths)}
            old, new = (epath.Path(which.sharded_filepath(**place)) for which in (template, other))
            shards.append(Shard(old, new, int(num_records)))
    return shards


def _is_done(shard: Shard, old_format: str, file_format: str) -> bool:
    """Whether the new file exists and agrees with the old one in the number of records and the first record."""
    if not shard.new.exists():
        return False
    try:
        records = read_records(shard.new, file_format)
        first, rest = next(records, None), sum(1 for _ in records)
    except UserError:
        return False
    same = first == next(read_records(shard.old, old_format), None)
    return same and (rest + (first is not None)) == shard.num_records


def _convert_one(shard: Shard, old_format: str, file_format: str, progress: Iterator) -> None:
    from tensorflow_datasets.core import file_adapters

    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    seen = 0

    def records() -> Iterable[tuple[int, bytes]]:
        nonlocal seen
        for record in read_records(shard.old, old_format):
            next(progress, None)
            seen += 1
            yield seen, record

    with tempfile.TemporaryDirectory() as elsewhere:
        # array_record's writer does not support object stores: the file is written locally and copied.
        is_remote = "://" in os.fspath(shard.new)
        unfinished = (Path(elsewhere) if is_remote else Path(shard.new).parent) / f".{shard.new.name}.{os.getpid()}"
        try:
            adapter.write_examples(unfinished, records())
            if seen != shard.num_records:
                raise UserError(
                    f"{shard.old} has {seen} records, but {_INFO} lists {shard.num_records}; prepare the data set again"
                )
            if is_remote:
                epath.Path(unfinished).copy(shard.new, overwrite=True)
            else:
                unfinished.replace(shard.new)
                for left in unfinished.parent.glob(f".{shard.new.name}.*"):
                    left.unlink(missing_ok=True)  # of a process that was killed
        finally:
            unfinished.unlink(missing_ok=True)


def _write_info(path: epath.Path, old_format: str, file_format: str) -> None:
    """Rewrite dataset_info.json with the new format to read, and the old one as TFDS's alternative."""
    info = read_object(path, "prepare the data set again", {"alternativeFileFormats": TEXTS})
    others = {*info.get("alternativeFileFormats", []), old_format} - {file_format}
    content = json.dumps(info | {"fileFormat": file_format, "alternativeFileFormats": sorted(others)}, indent=2)
    write_whole(as_path(os.fspath(path)), content.encode())


def _read_tfrecord(path: str) -> Iterator[bytes]:
    import tensorflow as tf

    records: Any = tf.data.TFRecordDataset(path).as_numpy_iterator()
    yield from records  # which compares the checksum of every record


def _read_array_record(path: str) -> Iterator[bytes]:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    with ArrayRecordDataSource([path]) as source:
        for start in range(0, len(source), _READ_AT_ONCE):
            yield from source.__getitems__(list(range(start, min(start + _READ_AT_ONCE, len(source)))))


_READERS = {"tfrecord": _read_tfrecord, "array_record": _read_array_record}
