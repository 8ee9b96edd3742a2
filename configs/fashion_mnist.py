r"""Fashion-MNIST with a small ResNet: minutes to hours on a laptop CPU, depending on `dataset.train_images`.

Stages, in order:

    python -m gensupcon_jax.main --config configs/fashion_mnist.py:teacher         --workdir runs/fashion_mnist_teacher
    python -m gensupcon_jax.main --config configs/fashion_mnist.py:genscl_teacher  --workdir runs/fashion_mnist_genscl_teacher
    python -m gensupcon_jax.main --config configs/fashion_mnist.py:linear_probe    --workdir runs/fashion_mnist_linear_probe \
        --config.model.weights=runs/fashion_mnist_genscl_teacher

Without a teacher: `:genscl` or `:supcon`, then `:linear_probe` with its workdir. The baseline is `:cross_entropy` alone.
TFDS downloads the data at the first start, into `--config.dataset.folder=...`.

Expected: docs/evidence.md has results with a share of the training images. All values below are `ours`.
"""

from gensupcon_jax.configs import common, variants
from gensupcon_jax.configs.fields import OURS


def get_config(variant="genscl"):
    """The recipe of one variant."""
    return common.changed(changes(variant))


def changes(variant="genscl"):
    """The changes of one variant: field -> (value, source)."""
    found = {
        "dataset.name": ("tfds:fashion_mnist", OURS),
        "batch_size": (256, OURS),
        "epochs": (20.0, OURS),
        "augment.crop_scale": ((0.6, 1.0), OURS),
        "augment.jitter_probability": (0.5, OURS),
        "model.name": ("resnet_small", OURS),
        "model.width": (16, OURS),
        "optimizer.warmup_epochs": (1.0, OURS),
    }
    found |= variants.changes(variant, data_set="fashion_mnist", method=OURS, values=OURS)
    if variant in ("cross_entropy", "teacher"):
        found |= {"optimizer.learning_rate": (0.1, OURS)}
    if variant == "linear_probe":
        found |= {
            "epochs": (10.0, OURS),
            "optimizer.learning_rate": (1.0, OURS),
            "optimizer.decay_epochs": ((6, 8, 9), OURS),
            "optimizer.warmup_epochs": (0.0, OURS),
        }
    return found
