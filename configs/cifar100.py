r"""CIFAR-100 with ResNet-50, the authors' recipe. A GPU or TPU is needed: 500 epochs take weeks on a CPU.

Stages, in order:

    python -m gensupcon_jax.main --config configs/cifar100.py:teacher         --workdir runs/cifar100_teacher
    python -m gensupcon_jax.main --config configs/cifar100.py:genscl_teacher  --workdir runs/cifar100_genscl_teacher
    python -m gensupcon_jax.main --config configs/cifar100.py:linear_probe    --workdir runs/cifar100_linear_probe \
        --config.model.weights=runs/cifar100_genscl_teacher

Without a teacher: `:genscl` or `:supcon`, then `:linear_probe` with its workdir. The baseline is `:cross_entropy` alone.

Expected top-1 on the test split after the linear stage (paper v1, ResNet-50; not measured here): genscl 82.8, and
genscl_teacher 84.7.
The paper's teacher is an EfficientNetV2-RW-M with a 3x3 stem of stride 1, ours the ResNet-50 of `:teacher`: 84.7 depends on it.
For supcon the paper quotes 76.5 from Khosla et al. 2020, who trained 1,000 epochs; `:supcon` trains 500.
With Momentum Contrast the paper's v2 reports 87.0; that recipe was not released.

`:gpaco` (arXiv 2209.12400) classifies with learned class centers and needs no linear stage. A goal, not a result: 80.3, which its
authors report. They also compare with a queue of 1,024 older embeddings; here the contrasts are those of the batch.

Every stage trains on all 50,000 images, as the authors' does, so there is no validation split and nothing is chosen by a score: k
of k-NN and the penalty of the quick probe are the middle candidates, and the stage `:linear_probe` is the result that counts. One
thing differs from the authors: they report the epoch that is best on the test split, this recipe the last one. To compare
settings, split off validation images: --config.dataset.validation_fraction=0.1.
"""

from gensupcon_jax.configs import cifar10, common


def get_config(variant="genscl"):
    """The recipe of one variant: that of CIFAR-10 on other data."""
    return common.changed(changes(variant))


def changes(variant="genscl"):
    """The changes of one variant: field -> (value, source)."""
    return cifar10.recipe("cifar100", variant)
