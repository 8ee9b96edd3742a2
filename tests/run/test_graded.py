"""What can be learned where labels are alike by degrees, by hand and as that of classes."""

import math

import numpy as np
import pytest

from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.run.graded import information_of
from gensupcon_jax.run.run import build_run
from gensupcon_jax.verdicts import separable_share
from tests.tiny import tiny_config, tiny_dataset


def test_information_by_hand():
    # The first anchor is like the second by 0.5 and like the third by 1; the others like the first alone.
    alike = np.array([[9.0, 0.5, 1.0], [0.5, 9.0, 0.0], [1.0, 0.0, 9.0]])
    first = 1 / 3 * math.log(2 / 3) + 2 / 3 * math.log(4 / 3)
    assert information_of(alike) == pytest.approx((first + 2 * math.log(2)) / 3)


def test_equal_similarities_tell_nothing_and_an_anchor_like_no_other_is_left_out():
    assert information_of(np.ones((5, 5))) == pytest.approx(0.0)
    assert information_of(np.eye(4)) == 0.0
    assert information_of(np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])) == pytest.approx(math.log(2))


def of_kind(labels, **settings):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8)
    return from_arrays(images, labels, **settings)


def test_several_labels_of_which_each_image_has_one_are_as_separable_as_classes(tmp_path):
    one_hot = np.eye(4, dtype=np.uint8)[np.arange(400) % 4]
    config = tiny_config(**{"mix.kind": "none"})
    share = build_run(config, tmp_path / "several", of_kind(one_hot, label_kind="several")).separable_share()
    assert share == pytest.approx(separable_share(math.log(4), 63), rel=0.02)
    assert share == pytest.approx(build_run(config, tmp_path / "classes", tiny_dataset()).separable_share(), rel=0.02)


def test_numbers_are_less_separable_than_their_bins(tmp_path):
    dataset = of_kind(np.linspace(0, 100, 400), label_kind="value")
    share = build_run(tiny_config(**{"mix.kind": "none"}), tmp_path, dataset).separable_share()
    # A similarity of a bell of width 5 sqrt(2) in a range of 100: ln(100 / (7.07 sqrt(2 pi e))), a little more at both ends.
    assert share == pytest.approx(1.28 / math.log(63), rel=0.05)
    without = tiny_config(**{"mix.kind": "none", "loss.use_labels": False})
    assert build_run(without, tmp_path, dataset).separable_share() == 1.0  # every image is a class


def test_what_a_classifier_of_numbers_can_learn_is_not_known(tmp_path):
    dataset = of_kind(np.linspace(0, 100, 400), label_kind="value")
    config = tiny_config(**{"mix.kind": "none", "objective": "cross_entropy", "augment.num_views": 1})
    assert build_run(config, tmp_path, dataset).separable_share() is None
