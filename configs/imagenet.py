r"""ImageNet with ResNet-50, Momentum Contrast and a queue of labeled keys. For TPU pods and GPUs.

Two files of ImageNet must be downloaded by hand and prepared once; this command tells which, and where to put them:

    gensupcon prepare imagenet

Stages, in order:

    python -m gensupcon_jax.main --config configs/imagenet.py:teacher         --workdir runs/imagenet_teacher
    python -m gensupcon_jax.main --config configs/imagenet.py:genscl_teacher  --workdir runs/imagenet_genscl_teacher
    python -m gensupcon_jax.main --config configs/imagenet.py:linear_probe    --workdir runs/imagenet_linear_probe \
        --config.model.weights=runs/imagenet_genscl_teacher

Without a teacher: `:genscl`, `:supcon` or `:local`, then `:linear_probe` with its workdir. Alone: `:gpaco`, which classifies,
and the baseline, `:cross_entropy`:

    python -m gensupcon_jax.main --config configs/imagenet.py:local           --workdir runs/imagenet_local
    python -m gensupcon_jax.main --config configs/imagenet.py:gpaco           --workdir runs/imagenet_gpaco
    python -m gensupcon_jax.main --config configs/imagenet.py:cross_entropy   --workdir runs/imagenet_cross_entropy

What a person can afford to rent: `:short` trains 40 epochs on views of 160, then 192 pixels, and its linear stage takes 16:

    python -m gensupcon_jax.main --config configs/imagenet.py:short               --workdir runs/imagenet_short
    python -m gensupcon_jax.main --config configs/imagenet.py:short_linear_probe  --workdir runs/imagenet_short_linear_probe

A classifier is trained beside the encoder, the momentum encoder is what is evaluated, at 224 pixels, and
--config.model.blur_pool=True adds anti-aliased strides. This command puts its price beside that of `imagenet`:

    gensupcon plan imagenet:short --beside imagenet --topology v5e:4x4 --price_per_chip_hour 1.2

Expected top-1 on the validation split, none of it measured here:

- `:supcon` 79.1. It is the memory variant of Khosla et al. 2020 (arXiv 2004.11362): a queue of 8,192 keys and, as its author
  wrote in an issue of SupContrast, batch 1,024, temperature 0.07 and otherwise MoCo v2 (arXiv 2003.04297).
- `:genscl_teacher` 77.3, which the paper's v2 reports for CutMix and a teacher with Momentum Contrast: a relative 4.1 % above
  its own SupCon, so 74.3. The authors did not release this recipe. Momentum Contrast, CutMix and a teacher are the paper's;
  the values are `ours`, and so is the teacher, the ResNet-50 of `:teacher`.
- `:gpaco` 79.7 without a linear stage, which GPaCo's authors report (arXiv 2209.12400): a goal, not a result. Their values, but
  with a momentum encoder, as in their PaCo (arXiv 2107.12028), at batch 1,024, and one policy of augmentation for both views.
- `:local` 80.2, which t-ReX* reports (arXiv 2206.15369): a goal, not a result. Eight small crops of each image besides two views;
  their crops, queue, rate and length. Theirs compares with the mean of the queue's keys of each class, has one large crop, three
  hidden layers in the head and solarization; ours compares with the keys, one of them of another crop of the same image.
- `:short` 77.2: a goal, not a result. It is what plain cross-entropy reaches in 40 epochs with FFCV's recipe, in 36 minutes on
  8 A100s (github.com/libffcv/ffcv-imagenet); 16 epochs reach 73.8 there. Sizes and lengths are FFCV's, the rest is `ours`.

The numbers come from different recipes, so they do not compare the losses.

The learning rate is MoCo v2's, scaled to the batch. It was not tuned for this loss. Before a long run, compare a few by their
validation accuracy after 20 epochs, each with its own cosine:

    for rate in 0.06 0.12 0.24 0.48; do
        python -m gensupcon_jax.main --config configs/imagenet.py:genscl --workdir runs/rate_$rate \
            --config.epochs=20 --config.optimizer.warmup_epochs=2 --config.optimizer.learning_rate=$rate
    done
"""

from gensupcon_jax.configs import common, variants
from gensupcon_jax.configs.fields import MOCO_V2, OURS, PAPER

VARIANTS = (*variants.VARIANTS, "local", "short", "short_linear_probe")
_BASES = {"short": "genscl", "short_linear_probe": "linear_probe"}  # the variants that the short ones change
_TREX = "ours, as t-ReX* (arXiv 2206.15369, its code)"
_FFCV = "ours, as FFCV's recipes for ImageNet (github.com/libffcv/ffcv-imagenet)"
_KHOSLA = "ours, as SupCon with a memory (arXiv 2004.11362 and its author)"


def get_config(variant="genscl"):
    """The recipe of one variant."""
    return common.changed(changes(variant))


def changes(variant="genscl"):
    """The changes of one variant: field -> (value, source)."""
    variants.check(variant, VARIANTS)
    if variant in _BASES:
        return changes(_BASES[variant]) | _shortened(variant)
    found = {
        "dataset.name": ("tfds:imagenet2012", OURS),
        "dataset.image_size": (224, "ours, as is usual"),
        "dataset.validation_fraction": (0.01, "ours: 12,812 images; ImageNet's validation split is the test split"),
        "epochs": (200.0, MOCO_V2),
        "optimizer.learning_rate": (0.12, f"{MOCO_V2}: 0.03 at batch 256"),
        "model.dtype": ("bfloat16", OURS),
        "mix.block": (32, OURS),
        "augment.blur_probability": (0.5, MOCO_V2),
        "loss.mode": ("momentum", PAPER),
        "loss.base_temperature": (None, "ours: the loss is not scaled"),
        "momentum_encoder.momentum": (0.999, MOCO_V2),
        "momentum_encoder.queue_size": (65536, MOCO_V2),
        "optimizer.final_learning_rate": (0.0, MOCO_V2),
        "evaluate.every_epochs": (10.0, OURS),
        "evaluate.train_images": (100_000, "ours: the features of all would be 10 GB"),
        "evaluate.linear_probe": (False, "ours: 1.28 million features are too many; the linear_probe stage evaluates"),
    }
    found |= variants.changes(
        "supcon" if variant == "local" else variant, data_set="imagenet", method=PAPER, values=OURS
    )
    if variant == "supcon":
        found |= {
            "loss.temperature": (0.07, _KHOSLA),
            "momentum_encoder.queue_size": (8192, _KHOSLA),
            "optimizer.warmup_epochs": (0.0, MOCO_V2),
        }
    if variant in ("genscl", "genscl_teacher"):
        found |= {
            "mix.kind": ("cutmix", "paper: its v2 names CutMix alone"),
            "mix.per": ("image", "ours: on Fashion-MNIST it was better than one lambda per batch"),
            "momentum_encoder.schedule": ("cosine", "ours, as BYOL (arXiv 2006.07733) and MoCo v3 (arXiv 2104.02057)"),
        }
    if variant == "gpaco":
        found |= {
            "prototypes.alpha": (0.05, variants.GPACO),
            "prototypes.label_smoothing": (0.1, variants.GPACO),
            "loss.temperature": (0.2, variants.GPACO),
            "loss.symmetric": (True, variants.GPACO),
            "momentum_encoder.queue_size": (8192, variants.GPACO),
            "epochs": (400.0, variants.GPACO),
            "augment.policy": ("rand", variants.GPACO),
            "augment.crop_scale": ((0.08, 1.0), variants.GPACO),
            "augment.rand_magnitude": (10.0, variants.GPACO),
            "optimizer.learning_rate": (0.16, "ours, as GPaCo: 0.08 at batch 512"),
        }
    if variant == "local":
        found |= {
            "augment.local_views": (8, _TREX),
            "augment.local_size": (96, _TREX),
            "augment.crop_scale": ((0.25, 1.0), _TREX),
            "augment.saturation": (0.2, _TREX),
            "momentum_encoder.queue_size": (8192, _TREX),
            "epochs": (100.0, _TREX),
            "optimizer.learning_rate": (0.4, "ours, as t-ReX*: 0.1 at batch 256"),
        }
    if variant == "genscl_teacher":
        found |= {"loss.symmetric": (True, "ours: the teacher sees both views anyway, so both can be queries")}
    if variant == "teacher":
        found |= {"mix.kind": ("cutmix", "ours, as the student"), "mix.per": ("image", "ours, as the student")}
    if variant in ("cross_entropy", "teacher"):
        found |= {
            "epochs": (90.0, "ours, as He et al. 2015"),
            "augment.crop_scale": ((0.08, 1.0), "ours, as Inception (arXiv 1409.4842)"),
            "optimizer.learning_rate": (0.4, "ours: 0.1 at batch 256 (arXiv 1706.02677)"),
            "optimizer.warmup_epochs": (5.0, "ours (arXiv 1706.02677)"),
        }
    if variant == "cross_entropy":
        found |= {"classifier.label_smoothing": (0.1, OURS)}
    if variant == "teacher":
        found |= {"classifier.label_smoothing": (0.0, "ours: a teacher's floor of probability attracts all classes")}
    return found


def _shortened(variant):
    """40 epochs for the encoder, 16 for the linear stage, with smaller views."""
    if variant == "short":
        return {
            "epochs": (40.0, _FFCV),
            "augment.sizes": ((160, 192), _FFCV),
            "augment.size_epochs": ((30.0,), f"{_FFCV}: three quarters of the epochs"),
            "optimizer.warmup_epochs": (2.0, "ours: a twentieth of the epochs, as in 200"),
            "classifier.beside": (True, "ours: it says early what the linear stage will find"),
            "evaluate.encoder": ("ema", "ours: the average is ahead while the rate is high"),
        }
    return {
        "model.weights": ("runs/imagenet_short", OURS),
        "epochs": (16.0, _FFCV),
        "augment.sizes": ((192,), _FFCV),
        "optimizer.schedule": ("cosine", "ours: the steps of the authors' schedule are for 100 epochs"),
        "optimizer.final_learning_rate": (0.0, OURS),
        "optimizer.warmup_epochs": (1.0, "ours: a sixteenth of the epochs"),
        "evaluate.every_epochs": (4.0, OURS),
    }
