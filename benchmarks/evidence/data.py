"""The data of a run: what the seed draws of a data set, and the placebos."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gensupcon_jax.data.datasets import Dataset


def drawn_per_class(classes: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Indices of `num` images, as many of each class, drawn by the seed; in ascending order."""
    draws = np.random.default_rng([seed, num])
    known = [np.flatnonzero(classes == number) for number in range(classes.max() + 1)]
    known = [indices for indices in known if len(indices)]
    sizes = [num // len(known) + (position < num % len(known)) for position in range(len(known))]
    chosen = [draws.permutation(indices)[:size] for indices, size in zip(known, sizes, strict=True)]
    return np.sort(np.concatenate(chosen))


def labeled_subset(dataset: Dataset, num: int | None, seed: int) -> Dataset:
    """Only `num` training images (None: all), drawn by the seed."""
    if num is None:
        return dataset
    return dataclasses.replace(dataset, train=dataset.train.subset(drawn_per_class(dataset.train.classes, num, seed)))


def all_labeled(dataset: Dataset, num: int | None, seed: int) -> Dataset:
    """All training images with their labels."""
    return dataset


def thousand_per_class(dataset: Dataset, num: int | None, seed: int) -> Dataset:
    """1,000 training images of each class, drawn by the seed."""
    return labeled_subset(dataset, 1_000 * dataset.num_classes, seed)


def others_unlabeled(dataset: Dataset, num: int | None, seed: int) -> Dataset:
    """All training images; those of `labeled_subset` have a label, the others none."""
    unlabeled = np.ones(dataset.train.num_images, bool)
    unlabeled[drawn_per_class(dataset.train.classes, num or dataset.train.num_images, seed)] = False
    return dataclasses.replace(dataset, train=dataset.train.without_labels(unlabeled))


def shuffled_labels(dataset: Dataset, num: int | None, seed: int) -> Dataset:
    """The images of `labeled_subset` with each other's labels: a placebo, from which no class can be learned."""
    found = labeled_subset(dataset, num, seed)
    order = np.random.default_rng([seed, 1]).permutation(found.train.num_images)
    return dataclasses.replace(found, train=found.train._replace(labels=found.train.labels[order]))


def first_8_classes(dataset: Dataset, num: int | None, seed: int) -> Dataset:
    """`labeled_subset` of the images of the first 8 classes, in training and validation; the test images stay."""
    seen = {
        name: split.subset(np.flatnonzero(split.classes < 8))
        for name, split in dataset.splits.items()
        if name != "test"
    }
    return labeled_subset(dataclasses.replace(dataset, **seen), num, seed)


# name of `data` in a plan -> (data set, number of labeled training images, seed) -> the data set of the run
PREPARATIONS: dict[str, Callable[[Dataset, int | None, int], Dataset]] = {
    each.__name__: each
    for each in (
        labeled_subset,
        all_labeled,
        thousand_per_class,
        others_unlabeled,
        shuffled_labels,
        first_8_classes,
    )
}


def uniform(images: jax.Array) -> jax.Array:
    """Logits of a teacher that knows nothing: all 10 classes alike."""
    return jnp.zeros((images.shape[0], 10))


# name of `teacher_function` in a plan -> normalized images to logits
TEACHERS: dict[str, Callable[[jax.Array], jax.Array]] = {"uniform": uniform}
