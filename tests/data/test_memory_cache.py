"""Small data sets of TFDS are decoded once; later starts have the same arrays without TFDS."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gensupcon_jax.data import datasets, tfds_sets
from gensupcon_jax.data.input_pipeline import epoch_order
from gensupcon_jax.errors import RunStopped, UserError
from tests.encoded import encode, picture, write_tfds

FORMATS = ("tfrecord", "array_record")


def records(num, first):
    return [(encode(picture(n % 3, first + n, (16, 16)), "PNG"), n % 3) for n in range(num)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The same 700 + 30 images in both formats, in two files each; the test split of TFDS has no labels."""
    splits = {
        "train": records(700, 0),
        "validation": records(30, 5000),
        "test": [(image, -1) for image, _ in records(9, 9000)],
    }
    folders = {}
    for file_format in FORMATS:
        folders[file_format] = tmp_path_factory.mktemp(file_format)
        write_tfds(folders[file_format], splits, file_format=file_format, num_shards=2, shape=(16, 16, 3))
    return folders


def load(folder, cache, **settings):
    return datasets.load("tfds:leaves", folder=str(folder), arrays_folder=cache, **settings)


def contents(dataset):
    return [
        (split.images.tobytes(), split.labels.tobytes()) for split in (dataset.train, dataset.validation, dataset.test)
    ]


@pytest.fixture
def without_tfds(monkeypatch):
    """Opening a builder is an error: the data must come from the cache."""

    def fail(*_):
        raise AssertionError("TFDS was asked")

    def forbid():
        monkeypatch.setattr(tfds_sets, "open_prepared", fail)

    return forbid


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_later_start_has_the_same_data_without_tfds(prepared, tmp_path, without_tfds, file_format):
    plain = load(prepared[file_format], None)
    first = load(prepared[file_format], tmp_path)
    without_tfds()
    again = load(prepared[file_format], tmp_path)
    assert contents(again) == contents(first) == contents(plain)
    assert again.description() == first.description() == plain.description()
    assert (again.class_names, again.notes) == (plain.class_names, plain.notes)
    assert [split.num_images for split in (again.train, again.validation, again.test)] == [630, 70, 30]


def test_both_formats_have_the_images_of_tfds_in_the_order_of_the_files(prepared):
    import tensorflow_datasets as tfds

    builder = tfds.builder("leaves", data_dir=str(prepared["tfrecord"]))
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    read = tfds.as_numpy(builder.as_dataset(split="train", batch_size=-1, shuffle_files=False, read_config=in_order))
    for file_format in FORMATS:
        mine, keys = tfds_sets.open_builder("leaves", str(prepared[file_format]))
        images, labels = tfds_sets.read_arrays(mine, keys, "leaves", "train")
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(images, read["image"])
        np.testing.assert_array_equal(labels, read["label"])


def test_parts_of_splits_are_kept_apart(prepared, tmp_path, without_tfds):
    halves = {"train_split": "train[:50%]", "validation_split": "train[50%:75%]", "test_split": "train[75%:]"}
    settings = [{}, halves, {"validation_fraction": 0.2}]
    plain = [load(prepared["array_record"], tmp_path, **each) for each in settings]
    without_tfds()
    for each, first in zip(settings, plain, strict=True):
        assert contents(load(prepared["array_record"], tmp_path, **each)) == contents(first)
    assert plain[1].train.num_images == 350
    assert len(list(tmp_path.iterdir())) == 2  # the cut of the validation split is made from the same arrays


def test_other_files_are_read_again(tmp_path):
    folder, larger = write_tfds_of(tmp_path / "data", 60), write_tfds_of(tmp_path / "larger", 90)
    before = load(folder, tmp_path / "cache")
    shutil.copytree(larger, folder, dirs_exist_ok=True)
    after = load(folder, tmp_path / "cache")
    assert (before.train.num_images, after.train.num_images) == (42, 63)  # less a tenth and a fifth
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_touched_file_or_another_version_beside_it_is_read_again(tmp_path, without_tfds):
    folder = write_tfds_of(tmp_path / "data", 60)
    load(folder, tmp_path / "cache")
    without_tfds()
    load(folder, tmp_path / "cache")
    (folder / "leaves" / "1.0.1").mkdir()
    with pytest.raises(AssertionError, match="TFDS was asked"):
        load(folder, tmp_path / "cache")
    (folder / "leaves" / "1.0.1").rmdir()
    load(folder, tmp_path / "cache")
    (record,) = (folder / "leaves" / "1.0.0").glob("*.tfrecord*")
    os.utime(record, (1, 1))
    with pytest.raises(AssertionError, match="TFDS was asked"):
        load(folder, tmp_path / "cache")


def test_a_lower_limit_of_memory_is_obeyed(prepared, tmp_path):
    assert not load(prepared["array_record"], tmp_path).is_encoded
    assert load(prepared["array_record"], tmp_path, memory_limit=0.1).is_encoded


def test_a_damaged_file_is_decoded_again_and_said(tmp_path, capsys, without_tfds):
    folder, cache = write_tfds_of(tmp_path / "data", 60), tmp_path / "cache"
    first = load(folder, cache)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    for place in (0, 30, 60, 400, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert contents(load(folder, cache)) == contents(first)
        assert f"{path} is damaged" in capsys.readouterr().err
        assert path.read_bytes() == whole
    without_tfds()
    assert contents(load(folder, cache)) == contents(first)


def test_a_cache_that_cannot_be_written_is_done_without_and_said(tmp_path, capsys):
    folder = write_tfds_of(tmp_path / "data", 60)
    (tmp_path / "file").write_text("in the way")
    first, second = (load(folder, tmp_path / "file" / "cache") for _ in range(2))
    assert contents(first) == contents(second)
    assert capsys.readouterr().err.count("this run does without it, and the next start reads the data again") == 2


def test_a_signal_while_decoding_leaves_no_cache(tmp_path, monkeypatch, without_tfds):
    folder, decoded_batches = write_tfds_of(tmp_path / "data", 60), tfds_sets._decoded_batches

    def stopped(*arguments):
        yield next(decoded_batches(*arguments))
        raise RunStopped("SIGTERM: nothing is lost; the same command resumes")

    monkeypatch.setattr(tfds_sets, "_decoded_batches", stopped)
    with pytest.raises(RunStopped):
        load(folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_record_is_one_line(tmp_path):
    for file_format in FORMATS:
        folder = write_tfds_of(tmp_path / file_format, 60, file_format=file_format)
        (path,) = (folder / "leaves" / "1.0.0").glob(f"*.{file_format}-*")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=r"^dataset.name is 'tfds:leaves', .*prepare the data set again"):
            load(folder, None)


def test_the_order_of_a_resume_is_the_same(prepared, tmp_path):
    first, again = (load(prepared["tfrecord"], tmp_path) for _ in range(2))
    order = epoch_order(0, 3, first.train.num_images)[:64]
    np.testing.assert_array_equal(first.train.images[order], again.train.images[order])


def write_tfds_of(folder, num, file_format="tfrecord"):
    write_tfds(folder, {"train": records(num, 0)}, file_format=file_format, shape=(16, 16, 3))
    return Path(folder)
