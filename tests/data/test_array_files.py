"""Arrays in an .npz file as a data set: names of its arrays, names of classes as labels, and what is no such file."""

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.errors import UserError

IMAGES = np.arange(40 * 6 * 6, dtype=np.uint32).reshape(40, 6, 6).astype(np.uint8)
LABELS = np.arange(40) % 2


def load(tmp_path, settings=None, **arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    return datasets.load(f"arrays:{tmp_path}/own.npz", **(settings or {}))


def test_arrays_of_a_file_are_a_data_set_without_tensorflow(tmp_path):
    dataset = load(tmp_path, images=IMAGES, labels=LABELS, class_names=np.array(["cat", "dog"]))
    assert (dataset.class_names, dataset.name) == (("cat", "dog"), f"arrays:{tmp_path}/own.npz")
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [28, 4, 8]
    given = datasets.from_arrays(IMAGES, LABELS, class_names=["cat", "dog"])
    assert dataset.description()["fingerprint"] == given.description()["fingerprint"]
    assert load(tmp_path, {"image_size": 12}, images=IMAGES, labels=LABELS).image_size == 12


@pytest.mark.parametrize(
    "names",
    [
        ("images", "labels", "test_images", "test_labels"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_splits_by_the_names_of_their_arrays(tmp_path, names):
    arrays = dict(zip(names, (IMAGES[:30], LABELS[:30], IMAGES[30:], LABELS[30:]), strict=True))
    dataset = load(tmp_path, **arrays, val_images=IMAGES[:4], val_labels=LABELS[:4, None], other=np.zeros(3))
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [30, 4, 10]
    assert dataset.validation.classes.tolist() == [0, 1, 0, 1]
    assert dataset.notes == (f"not used of arrays:{tmp_path}/own.npz: other",)


def test_labels_that_are_names(tmp_path):
    names = np.array(["10", "3"])[LABELS]
    dataset = load(tmp_path, images=IMAGES, labels=names, test_images=IMAGES[:4], test_labels=names[:4])
    assert dataset.class_names == ("3", "10")
    assert dataset.test.classes.tolist() == [1, 0, 1, 0]
    ordered = load(tmp_path, images=IMAGES, labels=names, class_names=["10", "3", "4"])
    assert ordered.class_names == ("10", "3", "4")
    with pytest.raises(UserError, match=r"the test label '7' is no class; allowed: 3, 10"):
        load(tmp_path, images=IMAGES, labels=names, test_images=IMAGES[:1], test_labels=["7"])


def test_several_labels_and_values(tmp_path):
    rows = np.stack([LABELS, np.arange(40) % 3 == 0], axis=1).astype(int)
    several = load(tmp_path, {"label_kind": "several"}, images=IMAGES, labels=rows, class_names=["odd", "third"])
    assert (several.label_kind, several.class_names) == ("several", ("odd", "third"))
    assert load(tmp_path, {"label_kind": "value"}, images=IMAGES, labels=np.arange(40) / 4).label_kind == "value"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "has the arrays pictures; allowed: images, labels, and optionally validation_images"),
        ({"images": IMAGES}, "has images, but not labels; allowed: images, labels"),
        ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "has test_images, but not test_labels"),
        ({"images": IMAGES, "labels": LABELS[:-1]}, "train has 40 images and 39 labels; allowed: one label per image"),
        (
            {"images": IMAGES, "labels": np.array([{}] * 40)},
            "own.npz cannot be read as .npz (Object arrays cannot be loaded",
        ),
    ],
)
def test_arrays_that_are_not_there(tmp_path, arrays, message):
    with pytest.raises(UserError) as error:
        load(tmp_path, **arrays)
    assert message in str(error.value)


def test_files_that_are_no_npz(tmp_path):
    with pytest.raises(
        UserError, match=r"none.npz does not exist; allowed with dataset.name arrays:<file>: an .npz file"
    ):
        datasets.load(f"arrays:{tmp_path}/none.npz")
    with pytest.raises(UserError, match="is a folder; allowed"):
        datasets.load(f"arrays:{tmp_path}")
    np.savez(tmp_path / "own.npz", images=IMAGES, labels=LABELS)
    whole = (tmp_path / "own.npz").read_bytes()
    for content in (b"", b"hello", whole[:200], whole[:-40], whole[:300] + bytes(100) + whole[400:]):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"own.npz cannot be read as .npz") as error:
            datasets.load(f"arrays:{tmp_path}/own.npz")
        assert "\n" not in str(error.value)
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(UserError, match=r"one.npy holds a single array, as an .npy does; allowed: an .npz"):
        datasets.load(f"arrays:{tmp_path}/one.npy")
