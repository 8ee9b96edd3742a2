r"""Long-tailed CIFAR-100 (imbalance factor 100) with ResNet-50. A GPU or TPU is needed: 500 epochs take days on a CPU.

Of 500 training images per class 500 to 5 are kept, 10,847 in all, as in the literature (arXiv 1901.05555). The test split stays
balanced: its top-1 is the macro average over the classes. There is no validation split, so nothing is chosen by a score. To
compare settings, split one off: with --config.dataset.validation_fraction=0.1 450 to 4 images per class are left to train.

Stages, in order:

    python -m gensupcon_jax.main --config configs/cifar100_lt.py:balanced      --workdir runs/cifar100_lt_balanced
    python -m gensupcon_jax.main --config configs/cifar100_lt.py:linear_probe  --workdir runs/cifar100_lt_linear_probe \
        --config.model.weights=runs/cifar100_lt_balanced

`:balanced` is `:supcon` with class-balanced denominators (BCL, arXiv 2207.09052), and its linear probe draws the classes alike.
The settings are those of the CIFAR-100 recipe; `--config.dataset.imbalance_factor=50` or 10 are the other usual factors.

`:gpaco` trains learned class centers with the log-prior of the classes (PaCo, arXiv 2107.12028), and classifies without a linear
stage:

    python -m gensupcon_jax.main --config configs/cifar100_lt.py:gpaco         --workdir runs/cifar100_lt_gpaco

A goal, not a result: 52.0 top-1, which PaCo reports for this data with ResNet-32. Nothing was measured here.
"""

from gensupcon_jax.configs import cifar10, common, variants
from gensupcon_jax.configs.fields import OURS

VARIANTS = ("supcon", "balanced", "gpaco", "linear_probe")
_PACO = "ours, as PaCo (arXiv 2107.12028, its code)"


def get_config(variant="balanced"):
    """The recipe of one variant."""
    return common.changed(changes(variant))


def changes(variant="balanced"):
    """The changes of one variant: field -> (value, source)."""
    variants.check(variant, VARIANTS)
    found = cifar10.recipe("cifar100", variant if variant in ("gpaco", "linear_probe") else "supcon")
    found |= {"dataset.imbalance_factor": (100.0, "ours, as arXiv 1901.05555")}
    if variant == "gpaco":
        return found | {
            "prototypes.prior": (True, _PACO),
            "loss.temperature": (0.05, _PACO),
            "optimizer.learning_rate": (0.1, _PACO),
            "optimizer.warmup_learning_rate": (0.01, _PACO),
        }
    found |= {
        "batch_size": (256, "ours: 42 steps per epoch, of 10,847 images"),
        "optimizer.learning_rate": (0.125, "ours: 0.5 at batch 1024"),
        "mix.block": (32, OURS),
    }
    if variant == "balanced":
        found |= {"loss.denominator": ("balanced", "ours, as BCL (arXiv 2207.09052)")}
    if variant == "linear_probe":
        found |= {
            "dataset.sampling": ("balanced", "ours, as cRT (arXiv 1910.09217)"),
            "model.weights": ("runs/cifar100_lt_balanced", OURS),
            "optimizer.learning_rate": (2.5, "ours: 5 at batch 512"),
        }
    return found
