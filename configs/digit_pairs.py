"""Two handwritten digits in each image, and both as its labels, with a small ResNet: minutes on a laptop CPU.

    python -m gensupcon_jax.main --config configs/digit_pairs.py --workdir runs/digit_pairs

Images are alike by the cosine of their labels: 1 with the same two digits, 1/2 with one in common. Evaluated by the mean average
precision over the ten labels. All values are `ours`.
"""

from gensupcon_jax.configs import common
from gensupcon_jax.configs.fields import OURS


def get_config():
    """GenSCL on pairs of digits."""
    return common.changed(changes())


def changes():
    """The changes of the recipe: field -> (value, source)."""
    return {
        "dataset.name": ("digit_pairs", OURS),
        "dataset.label_kind": ("several", OURS),
        "batch_size": (256, OURS),
        "epochs": (60.0, OURS),
        "augment.crop_scale": ((0.7, 1.0), OURS),
        "augment.flip_probability": (0.0, "ours: a mirrored digit is not a digit"),
        "classifier.beside": (True, OURS),
        "model.name": ("resnet_small", OURS),
        "model.width": (16, OURS),
        "optimizer.learning_rate": (0.1, OURS),
        "optimizer.warmup_epochs": (5.0, OURS),
        "evaluate.every_epochs": (10.0, OURS),
        "checkpoint.every_epochs": (20.0, OURS),
    }
