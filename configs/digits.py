"""Handwritten digits (1,797 real 8x8 images inside scikit-learn) with a small ResNet: minutes on a laptop's CPU.

    python -m gensupcon_jax.main --config configs/digits.py --workdir runs/digits

All values that differ from `common.py` are `ours`: chosen on the validation split.
"""

from gensupcon_jax.configs import common


def get_config():
    """GenSCL with CutMix and Mixup on the embedded digits."""
    config = common.get_config()
    config.dataset.name = "digits"
    config.batch_size = 256
    config.epochs = 120.0
    config.augment.crop_scale = (0.7, 1.0)
    config.augment.flip_probability = 0.0  # a mirrored digit is no digit
    config.mix.kind = "mixup_cutmix"
    config.mix.per = "image"
    config.model.name = "resnet_small"
    config.model.width = 16
    config.optimizer.warmup_epochs = 5.0
    config.evaluate.every_epochs = 20.0
    config.checkpoint.every_epochs = 40.0
    return config
