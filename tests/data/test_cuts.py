"""The stratified cut: that of scikit-learn, image by image."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from gensupcon_jax.data.cuts import cut_sizes, stratified_part


@pytest.mark.parametrize("seed", range(60))
def test_the_cut_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(2, 40))
    shares = rng.dirichlet(np.full(num_classes, rng.choice([0.3, 1, 10])))
    drawn = rng.choice(num_classes, size=rng.integers(num_classes, 900), p=shares)
    classes = rng.permutation(np.concatenate([np.arange(num_classes), np.arange(num_classes), drawn]))
    if seed % 3 == 0:
        classes = np.arange(20 * num_classes) % num_classes  # as many of each: all remainders are tied
    smallest, largest = cut_sizes(classes)
    for size in (smallest, int(rng.integers(smallest, largest + 1)), largest):
        rest, part = train_test_split(np.arange(len(classes)), test_size=size, stratify=classes, random_state=0)
        is_part = stratified_part(classes, size)
        np.testing.assert_array_equal(np.flatnonzero(is_part), np.sort(part))
        np.testing.assert_array_equal(np.flatnonzero(~is_part), np.sort(rest))


def test_the_cut_of_a_known_set_never_changes():
    classes = np.arange(30) % 3
    assert np.flatnonzero(stratified_part(classes, 6)).tolist() == [0, 13, 15, 22, 23, 29]
