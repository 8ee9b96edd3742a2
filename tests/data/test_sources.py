"""Sources of images: the table of forms of `dataset.name`, which can be extended from outside the package."""

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.encoded_sets import Reading
from gensupcon_jax.errors import UserError
from gensupcon_jax.prepare.contents import find_copies, read_contents
from gensupcon_jax.prepare.contents_table import class_rows, findings
from gensupcon_jax.run.config_check import check_config
from tests.encoded import write_folder
from tests.tiny import tiny_config, tiny_dataset


def blobs(num_classes, reading):
    """An entry of the table from outside the package."""
    if not num_classes.isdecimal():
        raise UserError(f"dataset.name is 'blobs:{num_classes}'; allowed: blobs:<a number of classes>")
    return tiny_dataset(num=24 * int(num_classes), num_classes=int(num_classes))


@pytest.fixture
def _blobs(monkeypatch):
    monkeypatch.setitem(datasets.SOURCES, "blobs:<classes>", blobs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", ("digits", "")),
        ("tfds:cifar10:3.0.2", ("tfds:<name>", "cifar10:3.0.2")),
        ("folder:/a:b", ("folder:<path>", "/a:b")),
        ("csv:a b.tsv", ("csv:<file>", "a b.tsv")),
        ("arrays", ("arrays", "")),
    ],
)
def test_a_name_is_an_entry_or_starts_with_its_prefix(name, expected):
    assert datasets.source_of(name) == expected


@pytest.mark.parametrize("name", ["cifar10", "tfds:", "folder: ", "digits:3", "", "blobs:3"])
def test_an_unknown_name_is_an_error_that_lists_the_table(name):
    with pytest.raises(UserError) as error:
        datasets.load(name)
    assert str(error.value) == (
        f"dataset.name is {name!r}; allowed: digits, digit_pairs, rotated_digits, tfds:<name>, folder:<path>, csv:<file>, "
        "parquet:<file>, arrays:<file>, arrays"
    )


@pytest.mark.usefixtures("_blobs")
def test_an_added_entry_is_a_source():
    dataset = datasets.load("blobs:3", image_size=12)
    assert (dataset.num_classes, dataset.stored_size, dataset.image_size) == (3, 8, 12)
    check_config(tiny_config(**{"dataset.name": "blobs:3"}))
    with pytest.raises(
        UserError,
        match="allowed: digits, digit_pairs, rotated_digits, tfds:<name>, folder:<path>, csv:<file>, "
        "parquet:<file>, arrays:<file>, arrays, blobs:<classes>",
    ):
        check_config(tiny_config(**{"dataset.name": "blob:3"}))
    with pytest.raises(UserError, match="'blobs:many'; allowed: blobs:<a number of classes>"):
        datasets.load("blobs:many")


@pytest.mark.usefixtures("_blobs")
def test_an_added_source_is_counted_like_the_others():
    contents = read_contents("blobs:3", Reading())
    assert contents.place == "from dataset.name blobs:3"
    assert class_rows(contents)[1:] == [["0", "16", "2", "6"], ["1", "16", "3", "5"], ["2", "16", "3", "5"]]
    assert findings(contents, find_copies(contents)) == []


def test_an_added_source_of_encoded_images_is_decoded(monkeypatch, tmp_path):
    path = write_folder(tmp_path / "trees", splits={"train": 3, "validation": 1, "test": 1})
    monkeypatch.setitem(datasets.SOURCES, "mine", lambda _rest, reading: datasets.folder_dataset(str(path), reading))
    mine, folder = (read_contents(name, Reading()) for name in ("mine", f"folder:{path}"))
    for one, other in zip(mine.splits, folder.splits, strict=True):
        np.testing.assert_array_equal(one.classes, other.classes)
        np.testing.assert_array_equal(one.fingerprints, other.fingerprints)
        assert one.formats == other.formats
        np.testing.assert_array_equal(one.pixels_fn(0), other.pixels_fn(0))
