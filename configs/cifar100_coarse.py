r"""CIFAR-100 where classes of one of its 20 coarse classes are half as similar as images of one class. For a GPU or TPU.

    python -m gensupcon_jax.main --config configs/cifar100_coarse.py:genscl --workdir runs/cifar100_coarse_genscl
    python -m gensupcon_jax.main --config configs/cifar100_coarse.py:linear_probe --workdir runs/cifar100_coarse_linear_probe \
        --config.model.weights=runs/cifar100_coarse_genscl

The variants and all other values are those of `cifar100`. `configs/cifar100_classes.csv` has the coarse class of each class, as
the data set gives it. Compare with `cifar100` itself: no result is known, and nothing was measured here.
"""

from gensupcon_jax.configs import cifar10, common, variants
from gensupcon_jax.configs.fields import OURS

VARIANTS = ("supcon", "genscl", "linear_probe")


def get_config(variant="genscl"):
    """The recipe of one variant."""
    return common.changed(changes(variant))


def changes(variant="genscl"):
    """The changes of one variant: field -> (value, source)."""
    variants.check(variant, VARIANTS)
    found = cifar10.recipe("cifar100", variant)
    if variant == "linear_probe":
        return found | {"model.weights": ("runs/cifar100_coarse_genscl", OURS)}
    return found | {"loss.label_similarity": ("matrix:cifar100_classes", OURS)}
