"""Scores by folder: counted by hand, and what cannot be scored."""

import numpy as np
import pytest

from gensupcon_jax.inference.predict_scores import folder_scores, scores_text

NAMES = ("cat", "dog", "emu", "fox")


def test_precision_recall_and_f1_by_hand():
    folders = ["cat"] * 4 + ["dog"] * 2
    classes = np.array([0, 0, 0, 1, 1, 2])
    scores = folder_scores(folders, classes, NAMES)
    assert (scores.num_images, scores.sentence) == (6, "")
    assert scores.accuracy == pytest.approx(100 * 4 / 6)
    cat, dog, emu = scores.rows
    assert cat[:2] == ("cat", 4) and cat[2:] == pytest.approx((100, 75, 100 * 2 * 0.75 / 1.75))
    assert dog[:2] == ("dog", 2) and dog[2:] == pytest.approx((50, 50, 50))
    assert emu[:2] == ("emu", 0) and emu[2] == 0 and np.isnan(emu[3])  # predicted once, no image of it
    assert scores_text(scores) == (
        "accuracy 66.7 % of 6 images\n\n"
        "class              images  precision  recall    F1\n"
        "cat                     4      100.0    75.0  85.7\n"
        "dog                     2       50.0    50.0  50.0\n"
        "emu                     0        0.0       -   0.0\n"
        "mean over classes       6       75.0    62.5  67.9"
    )


def test_a_class_that_is_never_predicted_has_no_precision():
    scores = folder_scores(["cat", "dog"], np.array([0, 0]), NAMES)
    assert np.isnan(scores.rows[1][2]) and scores.rows[1][3:] == (0.0, 0.0)
    assert "dog                     1          -     0.0   0.0" in scores_text(scores)


def test_folders_that_are_not_classes_are_named_and_not_scored():
    scores = folder_scores(["cat", "gnu", None, "gnu", "hen"], np.array([0, 1, 1, 2, 3]), NAMES)
    assert (scores.num_images, scores.accuracy) == (1, 100.0)
    assert scores.sentence == (
        "2 folders are not classes of the source: gnu, hen; 3 images are not scored (its classes: cat, dog, emu, fox)"
    )
    none = folder_scores(["gnu", None], np.array([0, 1]), NAMES)
    assert (none.num_images, none.rows) == (0, [])
    assert none.sentence.startswith("1 folder is not a class of the source: gnu; 1 image is not scored")
