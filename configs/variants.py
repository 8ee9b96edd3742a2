"""What the variants of a recipe change: supcon, genscl, genscl_teacher, cross_entropy, teacher, linear_probe.

`--config configs/cifar10.py:supcon` picks one; without a name it is genscl. Values are `authors' code` (their CIFAR
release, built on SupContrast) where nothing else is said.
"""

VARIANTS = ("supcon", "genscl", "genscl_teacher", "cross_entropy", "teacher", "linear_probe")


def apply(config, variant, *, data_set):
    """The config with a variant's changes; data_set names the workdirs that later stages read."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; allowed: {', '.join(VARIANTS)}")
    if variant in ("genscl", "genscl_teacher"):
        mixed(config)
    if variant == "genscl_teacher":
        taught(config, data_set)
    if variant in ("cross_entropy", "teacher"):
        classified(config)
    if variant == "teacher":
        mixed(config)
    if variant == "linear_probe":
        probed(config, data_set)
    return config


def mixed(config):
    """Mixup or CutMix, a coin for each view and batch."""
    config.mix.kind = "mixup_cutmix"


def taught(config, data_set):
    """A teacher's predictions of the mixed images as labels beside the mixed ones, with weight 1 and temperature 1."""
    config.teacher.kind = "workdir"
    config.teacher.path = f"runs/{data_set}_teacher"


def classified(config):
    """Cross-entropy on one view an image."""
    config.objective = "cross_entropy"
    config.augment.num_views = 1
    config.augment.jitter_probability = 0.0
    config.augment.gray_probability = 0.0
    config.augment.blur_probability = 0.0


def probed(config, data_set):
    """The second stage: a linear classifier on the frozen encoder."""
    config.objective = "linear_probe"
    config.model.weights = f"runs/{data_set}_genscl"
    config.batch_size = 512
    config.epochs = 100.0
    config.augment.num_views = 1
    config.augment.jitter_probability = 0.0
    config.augment.gray_probability = 0.0
    config.augment.blur_probability = 0.0
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 5.0
    config.optimizer.schedule = "step"
    config.optimizer.schedule_per = "epoch"
    config.optimizer.decay_epochs = (60, 75, 90)
    config.optimizer.decay_factor = 0.2
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.warmup_learning_rate = 1e-5
    config.optimizer.weight_decay = 0.0
