"""The smallest run of everything: used by the tests of the step, the loop and the command line."""

import numpy as np

from gensupcon_jax.configs import digits
from gensupcon_jax.data import datasets


def tiny_config(**changes):
    """The digits recipe with a network and a length that take seconds; changes are dotted names with _ for the dot."""
    config = digits.get_config()
    changes = {
        "batch_size": 32,
        "steps": 6,
        "log_steps": 2,
        "model.width": 4,
        "model.embedding_dim": 8,
        "mix.block": 4,
        "optimizer.warmup_epochs": 1.0,
        "optimizer.learning_rate": 0.1,
        "evaluate.every_epochs": 1.0,
        "evaluate.batch_size": 64,
        "evaluate.neighbors": (1, 3),
        "evaluate.probe_penalties": (0.1,),
        "checkpoint.every_epochs": 1.0,
    } | changes
    config.update_from_flattened_dict(changes)
    return config.lock()


def tiny_dataset(num=144, num_classes=4, size=8, channels=1, seed=0):
    """Noisy images whose class is a bright quarter: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    images = rng.integers(0, 120, (num, size, size, channels), np.uint8)
    half = size // 2
    for index, label in enumerate(labels):
        row, column = divmod(label % 4, 2)
        images[index, row * half : (row + 1) * half, column * half : (column + 1) * half] += 130
    return datasets.from_arrays(images, labels, validation_fraction=1 / 9, test_fraction=2 / 9)
