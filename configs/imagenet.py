r"""ImageNet with ResNet-50, Momentum Contrast and a queue of labeled keys. For TPU pods and GPUs.

Two files of ImageNet must be downloaded by hand and prepared once; this command tells which, and where to put them:

    gensupcon prepare imagenet

Stages, in order:

    python -m gensupcon_jax.main --config configs/imagenet.py:teacher         --workdir runs/imagenet_teacher
    python -m gensupcon_jax.main --config configs/imagenet.py:genscl_teacher  --workdir runs/imagenet_genscl_teacher
    python -m gensupcon_jax.main --config configs/imagenet.py:linear_probe    --workdir runs/imagenet_linear_probe \
        --config.model.weights=runs/imagenet_genscl_teacher

Without a teacher: `:genscl` or `:supcon`, then `:linear_probe` with its workdir. The baseline is `:cross_entropy` alone.

Expected top-1 on the validation split: 77.3 (paper v2, GenSCL with Momentum Contrast); 79.1 for SupCon with a queue of 8192
(Khosla et al. 2020). Neither was measured here. The authors did not release their ImageNet recipe. Momentum Contrast,
mixing and a teacher are the paper's; the values are `ours`, after MoCo v2 (arXiv 2003.04297) where stated, otherwise those of
the CIFAR recipe.
"""

from gensupcon_jax.configs import common, variants
from gensupcon_jax.configs.fields import MOCO_V2, OURS, PAPER


def get_config(variant="genscl"):
    """The recipe of one variant."""
    return common.changed(changes(variant))


def changes(variant="genscl"):
    """The changes of one variant: field -> (value, source)."""
    found = {
        "dataset.name": ("tfds:imagenet2012", OURS),
        "dataset.image_size": (224, "ours, as is usual"),
        "dataset.validation_fraction": (0.01, "ours: 12,812 images; ImageNet's validation split is the test split"),
        "epochs": (200.0, MOCO_V2),
        "model.dtype": ("bfloat16", OURS),
        "mix.block": (32, OURS),
        "augment.blur_probability": (0.5, MOCO_V2),
        "loss.mode": ("momentum", PAPER),
        "loss.base_temperature": (None, "ours: the loss is not scaled"),
        "momentum_encoder.momentum": (0.999, MOCO_V2),
        "momentum_encoder.queue_size": (65536, MOCO_V2),
        "optimizer.final_learning_rate": (0.0, OURS),
        "evaluate.every_epochs": (10.0, OURS),
        "evaluate.train_images": (100_000, "ours: the features of all would be 10 GB"),
        "evaluate.linear_probe": (False, "ours: 1.28 million features are too many; the linear_probe stage evaluates"),
    }
    found |= variants.changes(variant, data_set="imagenet", method=PAPER, values=OURS)
    if variant in ("cross_entropy", "teacher"):
        found |= {
            "epochs": (90.0, "ours, as He et al. 2015"),
            "augment.crop_scale": ((0.08, 1.0), "ours, as Inception (arXiv 1409.4842)"),
            "optimizer.learning_rate": (0.4, "ours: 0.1 at batch 256 (arXiv 1706.02677)"),
            "optimizer.warmup_epochs": (5.0, "ours (arXiv 1706.02677)"),
            "classifier.label_smoothing": (0.1, OURS),
        }
    return found
