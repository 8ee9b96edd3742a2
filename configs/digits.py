"""Handwritten digits (1,797 real 8x8 images in scikit-learn) with a small ResNet: minutes on a laptop CPU.

    python -m gensupcon_jax.main --config configs/digits.py --workdir runs/digits

All values are `ours`: chosen on the validation split.
"""

from gensupcon_jax.configs import common
from gensupcon_jax.configs.fields import OURS


def get_config():
    """GenSCL with CutMix and Mixup on the embedded digits."""
    return common.changed(changes())


def changes():
    """The changes of the recipe: field -> (value, source)."""
    return {
        "dataset.name": ("digits", OURS),
        "batch_size": (256, OURS),
        "epochs": (120.0, OURS),
        "augment.crop_scale": ((0.7, 1.0), OURS),
        "augment.flip_probability": (0.0, "ours: a mirrored digit is not a digit"),
        "mix.kind": ("mixup_cutmix", OURS),
        "mix.per": ("image", OURS),
        "model.name": ("resnet_small", OURS),
        "model.width": (16, OURS),
        "optimizer.warmup_epochs": (5.0, OURS),
        "evaluate.every_epochs": (20.0, OURS),
        "checkpoint.every_epochs": (40.0, OURS),
    }
