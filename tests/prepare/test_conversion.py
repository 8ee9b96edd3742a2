"""Conversion of a prepared TFDS data set: the same records, kept old files, interruption and damage."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

from gensupcon_jax.data import datasets, tfds_sets
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare import conversion
from gensupcon_jax.prepare.conversion import convert, read_records
from tests.encoded import encode, picture, records, write_tfds

SPLITS = {"train": records(40), "test": records(12, start=500)}
OTHER = {"tfrecord": "array_record", "array_record": "tfrecord"}


def written(folder, file_format):
    write_tfds(folder, SPLITS, file_format=file_format, num_shards=3)
    return opened(folder)


def opened(folder):
    return tfds_sets.open_builder("leaves", str(folder))[0]


def contents(builder):
    """Every record by file number and split, in the format that TFDS would read."""
    file_format = builder.info.file_format.value
    return {
        (split, number): list(read_records(path, file_format))
        for split, info in builder.info.splits.items()
        for number, path in enumerate(info.filepaths)
    }


@pytest.mark.parametrize("file_format", OTHER)
def test_every_record_is_the_same_and_the_old_files_are_kept(tmp_path, file_format):
    builder = written(tmp_path, file_format)
    before = {path.name: path.read_bytes() for path in builder.data_path.iterdir()}
    expected = contents(builder)
    old = convert(builder, "leaves", OTHER[file_format])
    after = opened(tmp_path)
    assert after.info.file_format.value == OTHER[file_format]
    assert contents(after) == expected
    assert [len(found) for found in expected.values()] == [13, 14, 13, 4, 4, 4]
    kept = {path.name: path.read_bytes() for path in after.data_path.iterdir()}
    assert {name: kept[name] for name in before if name != "dataset_info.json"} == {
        name: content for name, content in before.items() if name != "dataset_info.json"
    }
    assert sorted(Path(path).name for path in old) == sorted(name for name in before if f".{file_format}-" in name)
    info = json.loads((after.data_path / "dataset_info.json").read_text())
    was = json.loads(before["dataset_info.json"])
    assert {name for name in info if info[name] != was.get(name)} == {"fileFormat", "alternativeFileFormats"}
    assert info["alternativeFileFormats"] == [file_format]


def test_it_equals_what_tfds_builds_and_gives_the_same_images(tmp_path):
    convert(written(tmp_path / "converted", "tfrecord"), "leaves", "array_record")
    written(tmp_path / "built", "array_record")
    converted, built = opened(tmp_path / "converted"), opened(tmp_path / "built")
    assert contents(converted) == contents(built)
    sources = (builder.as_data_source(split="train") for builder in (converted, built))
    for one, other in zip(*sources, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        assert one["label"] == other["label"]
    sets = [datasets.load("tfds:leaves", folder=str(tmp_path / name), image_size=16) for name in ("converted", "built")]
    assert sets[0].description() == sets[1].description()
    assert not any("tfrecord" in note for note in sets[0].notes)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_data_sets_in_memory_keep_order_and_pixels(tmp_path, kind):
    splits = {
        split: [(encode(picture(number % 3, num + number, (24, 24)), kind), number % 3) for number in range(num)]
        for split, num in (("train", 40), ("test", 12))
    }
    write_tfds(tmp_path, splits, num_shards=3, shape=(24, 24, 3))
    before = datasets.load("tfds:leaves", folder=str(tmp_path))
    convert(opened(tmp_path), "leaves", "array_record")
    after = datasets.load("tfds:leaves", folder=str(tmp_path))
    assert not before.is_encoded
    np.testing.assert_array_equal(after.train.images, before.train.images)
    assert after.description() == before.description()


def test_a_round_trip_gives_the_same_records(tmp_path):
    builder = written(tmp_path, "tfrecord")
    expected = contents(builder)
    convert(builder, "leaves", "array_record")
    convert(opened(tmp_path), "leaves", "tfrecord")
    after = opened(tmp_path)
    assert contents(after) == expected
    info = json.loads((after.data_path / "dataset_info.json").read_text())
    assert (info["fileFormat"], info["alternativeFileFormats"]) == ("tfrecord", ["array_record"])


def test_an_interrupted_conversion_changes_nothing_and_resumes(tmp_path, monkeypatch):
    builder = written(tmp_path, "tfrecord")
    expected, real, calls = contents(builder), conversion._convert_one, []

    def interrupted(shard, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(shard)
        real(shard, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "_convert_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(builder, "leaves", "array_record")
    assert opened(tmp_path).info.file_format.value == "tfrecord"
    assert contents(opened(tmp_path)) == expected
    (calls[1].new.parent / f".{calls[1].new.name}.99999").write_bytes(b"of a killed process")
    cut = calls[0].new
    cut.write_bytes(cut.read_bytes()[:-30])  # truncated: written again
    (calls[0].new.parent / f".{calls[0].new.name}.99999").write_bytes(b"of a killed process")
    again = []
    monkeypatch.setattr(conversion, "_convert_one", lambda shard, *rest: (again.append(shard), real(shard, *rest)))
    convert(opened(tmp_path), "leaves", "array_record")
    assert [shard.new.name for shard in again] == [
        "leaves-train.array_record-00000-of-00003",
        "leaves-train.array_record-00002-of-00003",
        *(f"leaves-test.array_record-0000{number}-of-00003" for number in range(3)),
    ]
    assert contents(opened(tmp_path)) == expected


def test_damage_is_reported_with_the_file_and_nothing_is_changed(tmp_path):
    builder = written(tmp_path, "tfrecord")
    victim = builder.data_path / "leaves-train.tfrecord-00001-of-00003"
    whole = victim.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1  # one bit: only the record's checksum reveals it
    victim.write_bytes(bytes(damaged))
    with pytest.raises(
        UserError, match=r"leaves-train.tfrecord-00001-of-00003 is damaged \(corrupted record at \d+"
    ) as error:
        convert(builder, "leaves", "array_record")
    assert "\n" not in str(error.value)
    assert opened(tmp_path).info.file_format.value == "tfrecord"
    victim.unlink()
    with pytest.raises(UserError, match=r"leaves-train.tfrecord-00001-of-00003 does not exist; restore it"):
        convert(builder, "leaves", "array_record")
    assert not list(builder.data_path.glob(".*"))


def test_a_file_with_fewer_records_than_listed_is_an_error(tmp_path):
    builder = written(tmp_path, "tfrecord")
    victim, donor = (builder.data_path / f"leaves-{split}.tfrecord-00000-of-00003" for split in ("train", "test"))
    victim.write_bytes(donor.read_bytes())
    with pytest.raises(UserError, match=r"has 4 records, but dataset_info.json lists 13; prepare the data set again"):
        convert(builder, "leaves", "array_record")


def test_files_on_object_stores_are_written_locally_and_copied(tmp_path, monkeypatch):
    """array_record cannot write to gs://; a path with :// in its name represents it."""
    shard = conversion.Shard(
        conversion.epath.Path(written(tmp_path, "tfrecord").info.splits["test"].filepaths[0]),
        _RemotePath(tmp_path / "remote.array_record"),
        4,
    )
    monkeypatch.setattr(conversion, "epath", types.SimpleNamespace(Path=_LocalPath))
    conversion._convert_one(shard, "tfrecord", "array_record", iter(()))
    assert list(read_records(tmp_path / "remote.array_record", "array_record")) == list(
        read_records(shard.old, "tfrecord")
    )


class _RemotePath:
    """A stand-in for a path on an object store; its files are in a local folder."""

    def __init__(self, path):
        self.path, self.name = path, path.name

    def __fspath__(self):
        return f"gs://bucket/{self.name}"


class _LocalPath(type(Path())):
    def copy(self, target, overwrite):
        assert overwrite
        target.path.write_bytes(self.read_bytes())


def test_other_formats_are_an_error(tmp_path):
    builder = written(tmp_path, "tfrecord")
    builder.info._info_proto.file_format = "riegeli"
    builder.info.set_file_format("riegeli", override=True, override_if_initialized=True)
    with pytest.raises(UserError, match=r"prepared as riegeli in .*; allowed: array_record, tfrecord"):
        convert(builder, "leaves", "array_record")
