r"""Fashion-MNIST with a small ResNet: minutes to hours on a laptop's CPU, depending on `dataset.train_images`.

Stages, in order:

    python -m gensupcon_jax.main --config configs/fashion_mnist.py:teacher         --workdir runs/fashion_mnist_teacher
    python -m gensupcon_jax.main --config configs/fashion_mnist.py:genscl_teacher  --workdir runs/fashion_mnist_genscl_teacher
    python -m gensupcon_jax.main --config configs/fashion_mnist.py:linear_probe    --workdir runs/fashion_mnist_linear_probe \
        --config.model.weights=runs/fashion_mnist_genscl_teacher

Without a teacher: `:genscl` or `:supcon`, then `:linear_probe` with its workdir. The baseline is `:cross_entropy` alone.
TFDS downloads the data at the first start; `--config.dataset.folder=...` says where to.

Expected: docs/evidence.md has what was measured with a share of the training images. All values below are `ours`.
"""

from gensupcon_jax.configs import common, variants


def get_config(variant="genscl"):
    """The recipe of one variant."""
    config = common.get_config()
    config.dataset.name = "tfds:fashion_mnist"
    config.batch_size = 256
    config.epochs = 20.0
    config.augment.crop_scale = (0.6, 1.0)
    config.augment.jitter_probability = 0.5
    config.model.name = "resnet_small"
    config.model.width = 16
    config.optimizer.warmup_epochs = 1.0
    config = variants.apply(config, variant, data_set="fashion_mnist")
    if variant in ("cross_entropy", "teacher"):
        config.optimizer.learning_rate = 0.1
    if variant == "linear_probe":
        config.epochs = 10.0
        config.optimizer.learning_rate = 1.0
        config.optimizer.decay_epochs = (6, 8, 9)
        config.optimizer.warmup_epochs = 0.0
    return config
