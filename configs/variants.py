"""The variants of a recipe: supcon, genscl, genscl_teacher, gpaco, cross_entropy, teacher, linear_probe.

`--config configs/cifar10.py:supcon` selects one; the default is genscl. The values are those of the authors' CIFAR release,
which is based on SupContrast; each recipe states their sources in its own case.
"""

import difflib

from gensupcon_jax.configs.common import Changes
from gensupcon_jax.configs.fields import OURS

GPACO = "ours, as GPaCo (arXiv 2209.12400, its code)"

VARIANTS = ("supcon", "genscl", "genscl_teacher", "gpaco", "cross_entropy", "teacher", "linear_probe")


def check(variant: str, allowed: tuple[str, ...] = VARIANTS) -> None:
    """ValueError for a name that is not one of a recipe's variants."""
    if variant not in allowed:
        close = "".join(f"did you mean {name}? " for name in difflib.get_close_matches(variant, allowed, n=1))
        raise ValueError(f"unknown variant {variant!r}; {close}allowed: {', '.join(allowed)}")


def changes(variant: str, *, data_set: str, method: str, values: str, teacher: str = OURS) -> Changes:
    """The values of a variant and their sources.

    data_set: names the workdirs that later stages read.  method: source of mixing.  values: source of the numbers.
    teacher: source of the kind of teacher.  Raises ValueError for an unknown variant.
    """
    check(variant)
    found: Changes = {}
    if variant in ("genscl", "genscl_teacher", "teacher"):
        found |= {"mix.kind": ("mixup_cutmix", method)}
    if variant == "genscl_teacher":
        found |= _taught(data_set, teacher)
    if variant == "gpaco":
        found |= {"prototypes.use": (True, GPACO), "loss.base_temperature": (None, GPACO)}
    if variant in ("cross_entropy", "teacher"):
        found |= {"objective": ("cross_entropy", OURS)} | _one_plain_view(values)
    if variant == "linear_probe":
        found |= _probed(data_set, values) | _one_plain_view(values)
    return found


def _taught(data_set: str, teacher: str) -> Changes:
    """The teacher's predictions for the mixed images are additional labels, with weight 1 and temperature 1."""
    return {
        "teacher.kind": ("workdir", teacher),
        "teacher.path": (f"runs/{data_set}_teacher", OURS),
    }


def _one_plain_view(values: str) -> Changes:
    """One view per image, cropped and flipped only."""
    return {
        "augment.num_views": (1, values),
        "augment.jitter_probability": (0.0, values),
        "augment.gray_probability": (0.0, values),
        "augment.blur_probability": (0.0, values),
    }


def _probed(data_set: str, values: str) -> Changes:
    """The second stage: a linear classifier on the frozen encoder."""
    return {
        "objective": ("linear_probe", OURS),
        "model.weights": (f"runs/{data_set}_genscl", OURS),
        "batch_size": (512, values),
        "epochs": (100.0, values),
        "optimizer.name": ("sgd", values),
        "optimizer.learning_rate": (5.0, values),
        "optimizer.schedule": ("step", values),
        "optimizer.schedule_per": ("epoch", values),
        "optimizer.decay_epochs": ((60, 75, 90), values),
        "optimizer.decay_factor": (0.2, values),
        "optimizer.warmup_epochs": (5.0, values),
        "optimizer.warmup_learning_rate": (1e-5, values),
        "optimizer.final_learning_rate": (
            0.008,
            f"{values}: the decay factor to the third power; the cosine where the warm-up ends",
        ),
        "optimizer.weight_decay": (0.0, values),
    }
