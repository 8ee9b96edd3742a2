"""Kept predictions: what was written is read, and the same test images are recognized as such."""

import dataclasses

import numpy as np
import pytest

from gensupcon_jax.data.splits import EncodedSplit, Headers, Split, one_hot
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.kept_predictions import predictions_to_keep, read_predictions, write_predictions
from gensupcon_jax.evaluation.outcome import Outcome

CLASSES = np.array([2, 0, 1, 1])
IMAGES = np.arange(4 * 2 * 2, dtype=np.uint8).reshape(4, 2, 2, 1)
TEST = Split(IMAGES, one_hot(CLASSES, 3))
OUTCOMES = {
    6: {"knn": Outcome(5, 50.0, np.array([2, 0, 0, 1])), "linear": Outcome(0.1, 75.0, np.array([2, 0, 1, 1]))},
    3: {"knn": Outcome(5, 25.0, np.array([0, 0, 0, 0]))},
}


def encoded(files, classes=CLASSES):
    num = len(classes)
    headers = Headers(
        np.full((num, 2), 8), np.ones(num, int), np.zeros(num, int), np.ones(num, bool), np.zeros(num, bool)
    )
    return EncodedSplit(lambda _: [], lambda number: files[number], True, np.arange(num), classes, headers, 3)


FILES = [
    "/data/pets/test/ant/é 1.jpg",
    "/data/pets/test/bee/1.jpg",
    "/data/pets/test/bee/2.jpg",
    "/data/pets/test/cat/1.jpg",
]


def test_what_is_written_is_read(tmp_path):
    write_predictions(tmp_path, predictions_to_keep(TEST, OUTCOMES))
    kept = read_predictions(tmp_path)
    assert kept.names == ["0", "1", "2", "3"]
    assert kept.labels.tolist() == [2, 0, 1, 1]
    found = {step: {name: each.tolist() for name, each in part.items()} for step, part in kept.predictions.items()}
    assert found == {6: {"knn": [2, 0, 0, 1], "linear": [2, 0, 1, 1]}, 3: {"knn": [0, 0, 0, 0]}}


def test_names_are_files_below_their_common_folder(tmp_path):
    write_predictions(tmp_path, predictions_to_keep(encoded(FILES), OUTCOMES))
    assert read_predictions(tmp_path).names == ["ant/é 1.jpg", "bee/1.jpg", "bee/2.jpg", "cat/1.jpg"]


def identity(test):
    return predictions_to_keep(test, {}).images


@pytest.mark.parametrize(
    "other",
    [
        Split(IMAGES + 1, TEST.labels),
        Split(IMAGES, TEST.labels[::-1].copy()),
        Split(IMAGES[::-1].copy(), TEST.labels),
        TEST.subset(np.array([0, 1])),
        encoded(FILES),
    ],
)
def test_other_images_are_recognized(other):
    assert identity(TEST) == identity(Split(IMAGES.copy(), TEST.labels.copy()))
    assert identity(other) != identity(TEST)


def test_files_in_another_place_are_the_same_and_renamed_ones_are_not():
    moved = [file.replace("/data/pets", "/mnt/copy") for file in FILES]
    assert identity(encoded(FILES)) == identity(encoded(moved))
    assert identity(encoded(FILES)) != identity(encoded([*FILES[:-1], "/data/pets/test/cat/9.jpg"]))
    larger = encoded(FILES).headers._replace(sizes=np.full((4, 2), 9))
    assert identity(encoded(FILES)) != identity(dataclasses.replace(encoded(FILES), headers=larger))


def test_a_workdir_without_them_and_a_damaged_file(tmp_path):
    assert read_predictions(tmp_path) is None
    write_predictions(tmp_path, predictions_to_keep(TEST, OUTCOMES))
    (tmp_path / "predictions.npz").write_bytes((tmp_path / "predictions.npz").read_bytes()[:-60])
    with pytest.raises(UserError, match="is not the 'test predictions 1' that a run has kept"):
        read_predictions(tmp_path)
