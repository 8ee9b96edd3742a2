"""Every field of a run: its default, meaning and unit. A recipe starts from here and states its differences.

Tags: `paper` (arXiv 2206.00384), `authors' code` (their CIFAR release), `ours` (chosen here, or a matter of taste).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference


def optional(default=None) -> FieldReference:
    """A field that may be None, also on the command line: `--config.steps=None`."""
    return FieldReference(default, field_type=object)


def get_config() -> ConfigDict:
    """The authors' CIFAR recipe without a data set's particulars; `None` stands for "follows from the rest"."""
    config = ConfigDict()
    config.seed = 0  # every random draw of the run follows from it
    config.batch_size = 1024  # images a step over all devices, before views [authors' code]
    config.epochs = 500.0  # passes over the training split [authors' code]
    config.steps = optional()  # length in steps; where given, `epochs` is not used
    config.log_steps = 10  # steps between two rows of training metrics [ours]
    config.dataset = dataset()
    config.augment = augment()
    config.mix = mix()
    config.model = model()
    config.loss = loss()
    config.optimizer = optimizer()
    config.evaluate = evaluate()
    config.checkpoint = checkpoint()
    return config


def dataset() -> ConfigDict:
    """Where images and labels come from; class count, image size, mean and standard deviation follow from the data."""
    group = ConfigDict()
    group.name = "digits"  # digits | arrays (handed to `train_and_evaluate` from Python)
    return group


def augment() -> ConfigDict:
    """Random changes of each view, drawn image by image on the device [authors' code, after SimCLR]."""
    group = ConfigDict()
    group.num_views = 2  # views of an image, 2 or more
    group.crop_scale = (0.2, 1.0)  # smallest and largest share of the area that a crop keeps
    group.crop_ratio = (3 / 4, 4 / 3)  # smallest and largest width / height of a crop before it is resized
    group.flip_probability = 0.5  # left-right flip
    group.jitter_probability = 0.8  # colour jitter as a whole
    group.brightness = 0.4  # factor drawn from 1 +- this
    group.contrast = 0.4  # factor drawn from 1 +- this
    group.saturation = 0.4  # factor drawn from 1 +- this; nothing happens to one-channel images
    group.hue = 0.1  # shift drawn from +- this, in turns of the colour circle, at most 0.5; not for one channel
    group.grey_probability = 0.2  # all colour removed; nothing happens to one-channel images
    return group


def mix() -> ConfigDict:
    """Mixup and CutMix: images and their label distributions are mixed alike."""
    group = ConfigDict()
    group.kind = "none"  # none | mixup | cutmix | mixup_cutmix (a coin for each draw)
    group.alpha = 1.0  # lambda ~ Beta(alpha, alpha), above 0 [authors' code]
    group.per = "batch"  # batch: one lambda and one box a view a step [authors' code] | image: one for each image
    group.views = "independent"  # independent: each view draws its own partner and lambda [authors' code] | alike
    group.block = 32  # partners come from blocks of this many consecutive images; divides the batch of a device [ours]
    return group


def model() -> ConfigDict:
    """The encoder and its projection head."""
    group = ConfigDict()
    group.name = "resnet50"  # resnet18 | resnet34 | resnet50 | resnet101 | resnet_small (for a CPU) [paper: resnet50]
    group.stem = "auto"  # auto: by the image size | cifar: 3x3, no pooling | imagenet: 7x7 stride 2, max-pool
    group.width = optional()  # channels of the first stage; None: the network's own
    group.head = "mlp"  # mlp: hidden layer with ReLU [authors' code] | linear
    group.head_hidden_dim = optional()  # None: as wide as the features [authors' code: 2048]
    group.embedding_dim = 128  # size of the unit vectors that the loss compares [authors' code]
    group.dtype = "float32"  # float32 | bfloat16: of the computation; parameters, statistics, loss stay float32
    group.batch_norm = "sync"  # sync: statistics over all devices | local: each device its own [authors' code]
    return group


def loss() -> ConfigDict:
    """The generalized supervised contrastive loss."""
    group = ConfigDict()
    group.mode = "all"  # all: every view is anchor and contrast [authors' code] | one: first view against the others
    group.temperature = 0.1  # divides the cosine similarity of embeddings, above 0 [authors' code]
    group.base_temperature = optional(
        0.07
    )  # the loss is scaled by temperature / this; None: not scaled [authors' code]
    group.normalizer = (
        "similarity"  # similarity: by the sum of label similarities [authors' code] | count [paper, Eq. 2]
    )
    group.tile_size = optional()  # anchors a tile of the streamed softmax; None: the loss's own
    return group


def optimizer() -> ConfigDict:
    """SGD with momentum; warm-up, then a cosine, step by step [authors' code]."""
    group = ConfigDict()
    group.learning_rate = 0.5  # the peak
    group.warmup_epochs = 10.0  # epochs in which the rate rises in a line to the peak
    group.warmup_learning_rate = 0.01  # where the warm-up starts
    group.final_learning_rate = 5e-4  # where the cosine ends
    group.momentum = 0.9
    group.weight_decay = 1e-4  # coupled (added to the gradient), on every parameter
    return group


def evaluate() -> ConfigDict:
    """How frozen features are judged: settings are chosen on the validation split, test is reported once [ours]."""
    group = ConfigDict()
    group.every_epochs = 5.0  # epochs between two k-NN evaluations on the validation split; 0: only at the end
    group.batch_size = 512  # images at once over all devices
    group.neighbors = (1, 3, 5, 10, 20, 50, 200)  # the k of k-NN is one of these
    group.knn_temperature = 0.07  # a neighbour's vote weighs exp(cosine / this)
    group.probe_penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # the linear probe's L2 weight is one of these
    return group


def checkpoint() -> ConfigDict:
    """What is kept to continue from."""
    group = ConfigDict()
    group.every_epochs = 5.0  # epochs between two checkpoints; the last step is always saved
    group.keep = 2  # newest checkpoints kept
    return group
