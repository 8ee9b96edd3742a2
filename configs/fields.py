"""Every field of a config, declared once: default, allowed values, meaning, unit, and source of the default."""

import dataclasses
from typing import Any

from gensupcon_jax.configs.rules import (
    BELOW_ONE,
    CHANNELS,
    COLUMN,
    COLUMNS,
    FLAG,
    ONE_OR_THREE,
    PATH,
    RANGE,
    SPLIT_NAME,
    STEP,
    WEIGHT,
    Named,
    Rule,
    above,
    choice,
    integer,
    interval,
    none_or_more,
    number,
    optional,
    several,
)

# Sources of values; a remark may follow.
PAPER = "paper"  # arXiv 2206.00384
AUTHORS = "authors' code"  # their CIFAR release
OURS = "ours"  # chosen in this project
MOCO_V2 = "ours, as MoCo v2 (arXiv 2003.04297)"
RAND_AUGMENT = "ours, as RandAugment (arXiv 1909.13719)"

# Whether a field may change between two starts of a run in one workdir. Only what leaves every training step as it is may:
FREE = "yes"
SAME_CONTENT = "if the content is the same"  # by its fingerprint: a path, or how what is there is read
LONGER = "to make a finished run longer"
FIXED = "no"


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the config.

    default: None means that it follows from the rest.  allowed: the rule for its values.  meaning: a phrase that explains each
    name of a choice.  unit: of a number, empty if it has none.  source: PAPER, AUTHORS or OURS, possibly with a remark.
    may_change: between two starts of a run, FREE, SAME_CONTENT, LONGER or FIXED.
    """

    default: Any
    allowed: Rule | Named
    meaning: str
    unit: str = ""
    source: str = OURS
    may_change: str = FIXED

    @property
    def is_optional(self) -> bool:
        """Whether None is allowed."""
        return isinstance(self.allowed, Rule) and self.allowed.allows(None)


# The topic of each group of fields; the first fields have no group.
GROUPS: dict[str, str] = {
    "": "The run as a whole. The first of steps, images and epochs that is not None is the duration.",
    "dataset": "Where images and labels come from; number of classes, image size, mean and deviation follow from the data.",
    "augment": "Random changes of each view, drawn per image on the device (authors' code, after SimCLR).",
    "mix": "Mixup and CutMix: images and their label distributions are mixed by the same share.",
    "model": "The encoder and its projection head.",
    "classifier": "A linear layer from features to classes, for cross_entropy and linear_probe, or next to the contrastive loss.",
    "loss": "The generalized supervised contrastive loss.",
    "prototypes": "Learned centers of the classes as further contrasts, which classify too (PaCo, arXiv 2107.12028; GPaCo, "
    "arXiv 2209.12400).",
    "momentum_encoder": "The key encoder of loss.mode momentum, a moving average of the trained one, and the queue of its keys.",
    "teacher": "A trained classifier whose predictions serve as labels in addition to the true ones.",
    "optimizer": "The optimizer and its learning rate: a warm-up, then a schedule (authors' code: SGD with a cosine).",
    "evaluate": "How frozen features are evaluated: settings are chosen on the validation split, the test split is used once.",
    "checkpoint": "The checkpoints that are kept for resuming.",
}

FIELDS: dict[str, Field] = {
    # The run as a whole
    "objective": Field(
        "contrastive",
        choice("contrastive", "cross_entropy", "linear_probe"),
        "the training objective; cross_entropy: a teacher or the baseline; linear_probe: the second stage, on a frozen encoder",
    ),
    "seed": Field(0, integer(0, 2**32 - 1), "seed of every random draw of the run"),
    "batch_size": Field(
        1024, integer(1), "images per step over all devices; each has augment.num_views views", "images", AUTHORS
    ),
    "microbatches": Field(
        1,
        integer(1),
        "the network takes the images of a device in this many parts, one after the other: activations take 1 / microbatches "
        "of the memory, a step one forward pass more; the loss sees the whole batch, BatchNorm each part",
        "parts",
        "ours: GradCache (arXiv 2101.06983)",
    ),
    "epochs": Field(
        500.0,
        above(0),
        "length of the training in passes over the training split",
        "epochs",
        AUTHORS,
        may_change=LONGER,
    ),
    "steps": Field(
        None, optional(integer(0)), "length in steps; 0: only evaluate the encoder", "steps", may_change=LONGER
    ),
    "images": Field(None, optional(integer(0)), "length in training images", "images", may_change=LONGER),
    "log_steps": Field(10, integer(1), "time between two rows of training metrics", "steps", may_change=FREE),
    # The data
    "dataset.name": Field(
        "digits",
        Named("sources"),
        "digits: 1,797 handwritten digits of scikit-learn; digit_pairs: two of them in each image, both as labels; "
        "rotated_digits: turned, the angle is the label; "
        "tfds:<name>[:version]; folder:<path> of <split>/<class>/<image>; csv:<file> or parquet:<file>: a list of images with "
        "their labels; arrays:<file>: of an .npz; arrays: handed to train_and_evaluate",
        may_change=SAME_CONTENT,
    ),
    "dataset.label_kind": Field(
        "class",
        choice("class", "several", "value"),
        "labels of an image; class: one class, or a distribution over the classes; several: any number of labels, as rows of 0 "
        "and 1; value: a number, such as an age, which becomes a distribution over bins. Given arrays say it themselves",
    ),
    "dataset.num_bins": Field(
        64,
        integer(2),
        "label_kind value only: equal bins of the range of values; a value is a distribution over them",
        "bins",
    ),
    "dataset.value_width": Field(
        None,
        optional(above(0)),
        "label_kind value only: standard deviation of a value's distribution; two values are alike by about exp(-(a - b)^2 / "
        "(4 width^2)); None: a twentieth of the range",
        "unit of the values",
    ),
    "dataset.value_range": Field(
        None,
        optional(RANGE),
        "label_kind value only: lower and upper end of the bins, which must cover all values; None: the smallest and the largest",
        "unit of the values",
    ),
    "dataset.folder": Field(
        None,
        optional(PATH),
        "where TFDS keeps its data sets; None: TFDS's own default. Of a list: what its paths are relative to; None: the list's "
        "own folder",
        may_change=SAME_CONTENT,
    ),
    "dataset.path_column": Field(
        None,
        optional(COLUMN),
        "column of the paths in a list; None: path, file, filename, image, or another usual name",
    ),
    "dataset.label_columns": Field(
        None,
        optional(COLUMNS),
        "column of the labels in a list, or one for each class: names with commas between them, p_* for all that begin with p_; "
        "None: label, class, target, or another usual name, else all other columns if they hold numbers",
    ),
    "dataset.split_column": Field(
        None, optional(COLUMN), "column of the splits in a list; None: split, set, subset or partition, if there is one"
    ),
    "dataset.train_images": Field(
        None,
        optional(integer(1)),
        "use only this many training images, the same share of each class; None: all",
        "images",
    ),
    "dataset.train_split": Field(
        None, optional(SPLIT_NAME), "name of the training split, in TFDS's syntax (train[:90%]); None: the usual one"
    ),
    "dataset.validation_split": Field(
        None,
        optional(SPLIT_NAME),
        "name of the validation split; None: the usual one, or split off from the training split",
    ),
    "dataset.test_split": Field(
        None,
        optional(SPLIT_NAME),
        "name of the test split; None: the usual one, else the validation split, else split off from the training split",
    ),
    "dataset.validation_fraction": Field(
        0.1,
        BELOW_ONE,
        "share of the training images that is split off, stratified and always the same, if there is no validation split; "
        "0: none, all are trained on, and nothing is chosen by a score",
    ),
    "dataset.test_fraction": Field(0.2, above(0, below=1), "the same if there is no test split"),
    "dataset.image_size": Field(
        None,
        optional(integer(1)),
        "height and width of the network's input; None: those of the images, or 32 to 224 by their sizes",
        "pixels",
    ),
    "dataset.channels": Field(
        None,
        optional(ONE_OR_THREE),
        "channels of the network's input; images are converted when they are read: 1: color becomes gray (ITU-R 601); "
        "3: gray is repeated; None: those of the images, or 3 for gray images if the encoder in model.weights takes 3",
    ),
    "dataset.center_share": Field(
        None,
        optional(above(0, up_to=1)),
        "share of the shorter side that an evaluation keeps, in the center of an image; None: 1 where all are squares of "
        "dataset.image_size, else 0.875",
        source="ours; 0.875 is usual: 224 of 256 pixels",
    ),
    "dataset.memory_limit": Field(
        2048.0,
        number(0),
        "data sets with images of one size, up to this total, are kept in memory and cropped on the device",
        "MiB",
        may_change=SAME_CONTENT,
    ),
    "dataset.num_threads": Field(
        None, optional(integer(1)), "threads that decode images; None: one per core", "threads", may_change=FREE
    ),
    "dataset.remainder": Field(
        "drop",
        choice("drop", "carry"),
        "the incomplete last batch of an epoch; drop: left out, different images in each epoch; carry: begins the next epoch",
    ),
    "dataset.sampling": Field(
        "uniform",
        choice("uniform", "balanced", "sqrt"),
        "images of an epoch; uniform: every image once; balanced: as many of each class; sqrt: of a class with n images, in "
        "proportion to the root of n",
    ),
    "dataset.imbalance_factor": Field(
        None,
        optional(above(1)),
        "keep fewer training images of each later class, exponentially, so that the first class has this many times as many as "
        "the last (arXiv 1901.05555); None: all",
    ),
    "dataset.labeled_images": Field(
        None,
        optional(integer(2)),
        "keep the labels of only this many training images, the same share of each class; the others have none; None: of all",
        "images",
    ),
    "dataset.skip_damaged": Field(
        False,
        FLAG,
        "leave out images that cannot be decoded, and list them in the workdir; False: an error",
        may_change=SAME_CONTENT,
    ),
    "dataset.max_damaged_share": Field(
        0.01,
        number(0, 1),
        "a larger share of damaged images is an error even with dataset.skip_damaged",
        may_change=FREE,
    ),
    "dataset.input_bound_share": Field(
        0.1,
        number(0, 1),
        "report that a run is input-bound if it waits for images for more than this share of its time",
        may_change=FREE,
    ),
    # Views
    "augment.num_views": Field(
        2, integer(1), "views per image: 2 or more for the contrastive objective, 1 for the others", "views", AUTHORS
    ),
    "augment.policy": Field(
        "simclr",
        choice("simclr", "auto", "rand", "cutout", "none"),
        "simclr: crop, flip, color jitter, gray, blur; auto: crop, flip, AutoAugment; rand: crop, flip, RandAugment; "
        "cutout: crop, flip, a gray square; none: only normalization. A policy reads only the fields of its own operations "
        "and cutout_size",
        source=AUTHORS,
    ),
    "augment.crop_scale": Field(
        (0.2, 1.0),
        interval(0, 1),
        "smallest and largest share of the area that a crop keeps",
        source="authors' code; before AutoAugment and RandAugment theirs is (0.08, 1)",
    ),
    "augment.crop_ratio": Field(
        (3 / 4, 4 / 3),
        interval(0),
        "smallest and largest width / height of a crop before it is resized",
        source=AUTHORS,
    ),
    "augment.sizes": Field(
        None,
        optional(several(integer(1))),
        "height and width of the views in turn, while evaluations stay at dataset.image_size (progressive resizing); None: "
        "dataset.image_size",
        "pixels",
        "ours, as FFCV's recipes",
    ),
    "augment.size_epochs": Field(
        (),
        none_or_more(above(0)),
        "when each of augment.sizes but the first begins",
        "epochs",
        "ours, as FFCV's recipes",
    ),
    "augment.flip_probability": Field(0.5, number(0, 1), "probability of a left-right flip", source=AUTHORS),
    "augment.jitter_probability": Field(
        0.8, number(0, 1), "probability of the color jitter as a whole", source=AUTHORS
    ),
    "augment.brightness": Field(0.4, number(0), "the factor is drawn from 1 ± this", source=AUTHORS),
    "augment.contrast": Field(0.4, number(0), "the factor is drawn from 1 ± this", source=AUTHORS),
    "augment.saturation": Field(
        0.4, number(0), "the factor is drawn from 1 ± this; one-channel images are unchanged", source=AUTHORS
    ),
    "augment.hue": Field(
        0.1,
        number(0, 0.5),
        "the shift is drawn from ± this; one-channel images are unchanged",
        "turns of the color circle",
        AUTHORS,
    ),
    "augment.gray_probability": Field(
        0.2, number(0, 1), "probability that all color is removed; one-channel images are unchanged", source=AUTHORS
    ),
    "augment.blur_probability": Field(
        0.0, number(0, 1), "probability of a Gaussian blur", source="authors' code: none on CIFAR; MoCo v2 has 0.5"
    ),
    "augment.blur_sigma": Field(
        (0.1, 2.0), interval(0), "smallest and largest width of the blur", "pixels of a 224-pixel image", MOCO_V2
    ),
    "augment.auto_policy": Field(
        "auto",
        choice("auto", "cifar10", "svhn", "imagenet"),
        "AutoAugment's policy; auto: by the data set",
        source="ours, as AutoAugment (arXiv 1805.09501); authors' code: ImageNet's, on CIFAR too",
    ),
    "augment.rand_num_operations": Field(
        2, integer(0), "operations per image", "operations", f"{RAND_AUGMENT}; authors' code: 1"
    ),
    "augment.rand_magnitude": Field(
        9.0, number(0, 30), "strength of each operation", source=f"{RAND_AUGMENT}; authors' code: 2"
    ),
    "augment.cutout_size": Field(
        None,
        optional(number(0, 1)),
        "side of Cutout's gray square as a share of the image's side, after any policy's other operations; 0: no square; "
        "None: 0.5 with the policy cutout, else 0",
        source="authors' code: off, or 16 of 32 pixels (arXiv 1708.04552)",
    ),
    "augment.local_views": Field(
        0,
        integer(0),
        "small crops of each image besides its views: further anchors of the contrastive loss, compared with the views, never "
        "contrasts; 0: none",
        "views",
        "ours; SwAV (arXiv 2006.09882) has 6, t-ReX (arXiv 2206.15369) 8",
    ),
    "augment.local_size": Field(
        None,
        optional(integer(1)),
        "height and width of a local view, at most those of the views; None: 3/7 of them",
        "pixels",
        "ours, as SwAV and t-ReX: 96 of 224 pixels",
    ),
    "augment.local_scale": Field(
        (0.05, 0.25),
        interval(0, 1),
        "smallest and largest share of the area that a local view keeps; its ratio is augment.crop_ratio",
        source="ours, as t-ReX (arXiv 2206.15369); SwAV (arXiv 2006.09882) has (0.05, 0.14)",
    ),
    # Mixing
    "mix.kind": Field(
        "none",
        choice("none", "mixup", "cutmix", "mixup_cutmix"),
        "mixup_cutmix: either of the two with equal probability, for each draw",
    ),
    "mix.alpha": Field(1.0, above(0), "lambda ~ Beta(alpha, alpha)", source=AUTHORS),
    "mix.per": Field(
        "batch",
        choice("batch", "image"),
        "batch: one lambda and one box per view and step; image: one per image",
        source=AUTHORS,
    ),
    "mix.views": Field(
        "independent",
        choice("independent", "alike"),
        "independent: each view draws its own partner and lambda; alike: all views share them",
        source=AUTHORS,
    ),
    "mix.block": Field(
        32,
        integer(2),
        "partners come from blocks of this many consecutive images; must divide the batch per device",
        "images",
    ),
    # The network
    "model.name": Field(
        "resnet50",
        Named("encoders"),
        "the encoder; resnet_small is for a CPU; vit_small_patch16 at 224 pixels is timm's vit_small_patch16_224",
        source=PAPER,
    ),
    "model.stem": Field(
        "auto",
        choice("auto", "cifar", "imagenet"),
        "auto: by the image size; cifar: 3x3 convolution, no pooling; imagenet: 7x7 convolution with stride 2, max-pooling",
    ),
    "model.width": Field(
        None,
        optional(integer(1)),
        "channels of a ResNet's first stage, or of a ViT's tokens; None: the network's own width",
        "channels",
    ),
    "model.pool": Field(
        "class",
        choice("class", "average"),
        "features of a ViT; class: of the class token; average: mean over the patches",
    ),
    "model.blur_pool": Field(
        False,
        FLAG,
        "ResNets only: a 3x3 blur before each stride but the first (Zhang 2019, arXiv 1904.11486), against aliasing",
    ),
    "model.head": Field(
        "mlp", choice("linear", "mlp"), "the projection; mlp: with one hidden layer and ReLU", source=AUTHORS
    ),
    "model.head_hidden_dim": Field(
        None,
        optional(integer(1)),
        "size of the hidden layer; None: as wide as the features",
        source="authors' code: 2048",
    ),
    "model.embedding_dim": Field(128, integer(1), "size of the unit vectors that the loss compares", source=AUTHORS),
    "model.dtype": Field(
        "float32",
        choice("float32", "bfloat16"),
        "data type of the network's computation; parameters, statistics and the loss stay float32",
    ),
    "model.weights": Field(
        None,
        optional(PATH),
        "initial weights, a workdir or a .safetensors or .pth file; None: drawn from the seed",
        may_change=SAME_CONTENT,
    ),
    "model.weights_step": Field(
        None,
        optional(STEP),
        "which step of the workdir in model.weights; best: by its validation; None: last",
    ),
    "model.mean": Field(
        None,
        optional(CHANNELS),
        "mean of each channel that images are normalized with, on the scale 0..1; None: that of model.weights, else of the "
        "training images",
    ),
    "model.std": Field(None, optional(CHANNELS), "the same for the standard deviation"),
    "model.batch_norm": Field(
        "sync",
        choice("sync", "local"),
        "sync: statistics over all devices; local: each device its own, as in the authors' code; the keys of mode momentum are "
        "then encoded on other devices than their queries, as MoCo does",
    ),
    # The classifier
    "classifier.label_smoothing": Field(
        0.0, BELOW_ONE, "this share of each label is spread over all classes", source=AUTHORS
    ),
    "classifier.beside": Field(
        False, FLAG, "contrastive only: also train a classifier on the features, without gradient to the encoder"
    ),
    # The loss
    "loss.mode": Field(
        "all",
        choice("all", "one", "momentum"),
        "all: every view is anchor and contrast; one: the first view against the others; "
        "momentum: queries against the momentum encoder's keys of this batch and of the queue (paper)",
        source=AUTHORS,
    ),
    "loss.symmetric": Field(False, FLAG, "momentum only: every view is a query once, not only the first"),
    "loss.temperature": Field(0.1, above(0), "divides the cosine similarity of embeddings", source=AUTHORS),
    "loss.base_temperature": Field(
        0.07, optional(above(0)), "the loss is scaled by temperature / this; None: not scaled", source=AUTHORS
    ),
    "loss.normalizer": Field(
        "similarity",
        choice("similarity", "count"),
        "similarity: divide by the sum of label similarities; count: by the number of contrasts (paper, Eq. 2)",
        source=AUTHORS,
    ),
    "loss.denominator": Field(
        "plain",
        choice("plain", "balanced"),
        "weights of the contrasts in the sum of the softmax; plain: 1; balanced: 1 / the number of contrasts of its class (BCL, "
        "arXiv 2207.09052)",
        source=AUTHORS,
    ),
    "loss.label_similarity": Field(
        "cosine",
        Named("label similarities"),
        "similarity of two label distributions; cosine: of the angle between them; dot: their inner product; bhattacharyya: that "
        "of the square roots of their probabilities; jaccard: classes in common over classes of either; matrix: by a file with "
        "the similarity of each class to each other",
        source=PAPER,
    ),
    "loss.use_labels": Field(
        True,
        FLAG,
        "False: no image has a label in the loss, so each is similar to its own views only (SimCLR); the evaluation uses labels",
    ),
    "loss.tile_size": Field(
        None, optional(integer(1)), "anchors per tile of the streamed softmax; None: the default of the loss", "anchors"
    ),
    # The prototypes
    "prototypes.use": Field(
        False,
        FLAG,
        "contrastive only: a linear layer on the features has a center of each class, a contrast of every anchor",
    ),
    "prototypes.alpha": Field(
        0.05, number(0), "weight of the attraction to images", source="ours, as GPaCo on ImageNet; 0.01 on CIFAR-100"
    ),
    "prototypes.beta": Field(1.0, above(0), "weight of the attraction to centers", source="ours, as GPaCo"),
    "prototypes.label_smoothing": Field(
        0.0,
        BELOW_ONE,
        "a center is of all classes by this share",
        source="ours, as GPaCo on CIFAR-100; 0.1 on ImageNet",
    ),
    "prototypes.prior": Field(
        False,
        FLAG,
        "for imbalanced data: while training, the log of the share of each class is added to the logits of its center",
        source="ours: PaCo has it for long-tailed data",
    ),
    # The momentum encoder
    "momentum_encoder.momentum": Field(
        0.999,
        number(0, 1),
        "decay of the moving average per step, also of that of evaluate.encoder ema",
        source="ours, as MoCo (arXiv 1911.05722)",
    ),
    "momentum_encoder.schedule": Field(
        "constant", choice("constant", "cosine"), "cosine: from momentum to 1 over the run, as BYOL (arXiv 2006.07733)"
    ),
    "momentum_encoder.queue_size": Field(
        0, integer(0), "keys kept from earlier steps, a multiple of the batch; 0: only the keys of this batch", "keys"
    ),
    "momentum_encoder.queue_labels": Field(
        True, FLAG, "False: keys of the queue have no labels and only repel, whatever their class, as in MoCo"
    ),
    # The teacher
    "teacher.kind": Field(
        "none",
        choice("none", "workdir", "stablehlo", "weights", "callable"),
        "workdir: a run of this program; stablehlo: an exported function; weights: a .safetensors or .pth file; "
        "callable: a Python function",
    ),
    "teacher.path": Field(None, optional(PATH), "the workdir or the file", may_change=SAME_CONTENT),
    "teacher.weights_step": Field(None, optional(STEP), "which step of a workdir; best: by its validation; None: last"),
    "teacher.architecture": Field(
        "resnet50", Named("encoders"), "encoder of the teacher, for kind weights; computes in model.dtype"
    ),
    "teacher.image_size": Field(
        None,
        optional(integer(1)),
        "height and width of its training images; None: those of the workdir or the artifact, else of the data",
        "pixels",
    ),
    "teacher.mean": Field(
        None,
        optional(CHANNELS),
        "mean of each channel of its training images, on the scale 0..1; None: that of the workdir, or of a file that says it, "
        "else of the data",
    ),
    "teacher.std": Field(None, optional(CHANNELS), "the same for the standard deviation"),
    "teacher.weight": Field(
        1.0,
        WEIGHT,
        "loss = loss of the labels + weight x loss of the predictions; inf: predictions only",
        source=AUTHORS,
    ),
    "teacher.temperature": Field(
        1.0, above(0), "the teacher's logits are divided by this before the softmax", source=AUTHORS
    ),
    "teacher.output": Field(
        None,
        optional(choice("softmax", "sigmoid")),
        "how its logits become predictions; sigmoid: of each label by itself; None: sigmoid where the labels of the teacher, or "
        "else of the data, are several per image",
    ),
    "teacher.allow_poor": Field(
        False, FLAG, "accept a teacher whose accuracy on the validation split is below twice chance", may_change=FREE
    ),
    # The optimizer
    "optimizer.name": Field("sgd", Named("optimizers"), "the optimizer", source=AUTHORS),
    "optimizer.learning_rate": Field(0.5, above(0), "the peak learning rate", source=AUTHORS),
    "optimizer.schedule": Field(
        "cosine",
        choice("cosine", "step", "constant"),
        "the rate after the warm-up; step: multiplied by decay_factor at each of decay_epochs",
        source=AUTHORS,
    ),
    "optimizer.schedule_per": Field(
        "step",
        choice("step", "epoch"),
        "epoch: the rate after the warm-up changes once per epoch, and the warm-up ends at the value of the cosine there, "
        "also before the step schedule, as in the authors' code",
    ),
    "optimizer.extension": Field(
        None,
        optional(choice("constant", "rewarm")),
        "the rate in the steps that a finished run gets when its duration is raised; constant: that of its last step; rewarm: "
        "from there up to the peak in a new warm-up, then the schedule anew over the added steps (SGDR, arXiv 1608.03983); "
        "None: it is not made longer",
        may_change=LONGER,
    ),
    "optimizer.warmup_epochs": Field(10.0, number(0), "duration of the linear warm-up to the peak", "epochs", AUTHORS),
    "optimizer.warmup_steps": Field(None, optional(integer(0)), "the same in steps", "steps"),
    "optimizer.warmup_images": Field(None, optional(integer(0)), "the same in training images", "images"),
    "optimizer.warmup_learning_rate": Field(
        0.01, number(0), "learning rate at which the warm-up starts", source=AUTHORS
    ),
    "optimizer.final_learning_rate": Field(
        0.001,
        number(0, 1),
        "learning rate at which the cosine ends, relative to the peak, so that learning_rate alone may be changed",
        "share of learning_rate",
        "authors' code: the decay rate of 0.1, to the third power",
    ),
    "optimizer.decay_epochs": Field(
        (60, 75, 90),
        several(number(0)),
        "when the step schedule lowers the rate",
        "epochs",
        "authors' code, linear stage",
    ),
    "optimizer.decay_factor": Field(
        0.2, number(0, 1), "the step schedule multiplies the rate by this", source="authors' code, linear stage"
    ),
    "optimizer.momentum": Field(
        0.9, number(0, 1), "momentum of sgd, lars and rmsprop; beta1 of adam and adamw", source=AUTHORS
    ),
    "optimizer.nesterov": Field(False, FLAG, "Nesterov momentum, for sgd and lars"),
    "optimizer.second_momentum": Field(
        0.999, number(0, 1), "decay of the squared gradients of rmsprop (usually 0.9), adam and adamw"
    ),
    "optimizer.trust_coefficient": Field(0.001, above(0), "trust coefficient of lars"),
    "optimizer.weight_decay": Field(1e-4, number(0), "L2 penalty of the parameters", source=AUTHORS),
    "optimizer.weight_decay_mode": Field(
        "coupled",
        choice("coupled", "decoupled"),
        "coupled: added to the gradient; decoupled: added to the update (adamw: always)",
    ),
    "optimizer.max_skipped_steps": Field(
        0,
        integer(0),
        "number of steps with values that are not finite, or of spikes, to skip before the run stops",
        "steps",
        may_change=FREE,
    ),
    "optimizer.spike_deviations": Field(
        0.0,
        number(0),
        "a step whose loss or gradient norm is more than so many standard deviations above the mean of spike_window steps is "
        "skipped; 0: no spike is looked for",
        "deviations",
    ),
    "optimizer.spike_window": Field(
        100,
        integer(2),
        "number of accepted steps that a spike is measured by; the first so many steps are none",
        "steps",
    ),
    "optimizer.exclude_bias_and_norm": Field(
        False,
        FLAG,
        "no weight decay, and no scaling by lars, for biases, BatchNorm, LayerNorm, class token and position embeddings",
    ),
    # Evaluation
    "evaluate.every_epochs": Field(
        5.0,
        number(0),
        "time between two evaluations on the validation split; 0: only at the end",
        "epochs",
        may_change=FREE,
    ),
    "evaluate.every_steps": Field(None, optional(integer(0)), "the same in steps", "steps", may_change=FREE),
    "evaluate.every_images": Field(
        None, optional(integer(0)), "the same in training images", "images", may_change=FREE
    ),
    "evaluate.encoder": Field(
        "online",
        choice("online", "ema"),
        "the network that is evaluated, exported and read by later stages; ema: a moving average of the trained one: the "
        "momentum encoder with loss.mode momentum, else an average with the decay momentum_encoder.momentum",
    ),
    "evaluate.linear_probe": Field(
        True, FLAG, "fit a linear probe on the frozen features at the end; False if they are too many"
    ),
    "evaluate.batch_size": Field(
        512,
        integer(1),
        "images evaluated at once over all devices; fewer where more than an eighth of all batches would be padding",
        "images",
        may_change=FREE,
    ),
    "evaluate.train_images": Field(
        None, optional(integer(2)), "number of training images for k-NN and probe; None: all", "images"
    ),
    "evaluate.neighbors": Field(
        (1, 3, 5, 10, 20, 50, 200), several(integer(1)), "candidates for the k of k-NN", "neighbors"
    ),
    "evaluate.knn_temperature": Field(0.07, above(0), "the vote of a neighbor has the weight exp(cosine / this)"),
    "evaluate.measures": Field((), Named("measures", is_list=True), "further measures of the frozen features"),
    "evaluate.probe_penalties": Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0), several(above(0)), "candidates for the L2 penalty of the linear probe"
    ),
    "evaluate.choices_from": Field(
        None,
        optional(PATH),
        "without a validation split: the workdir of a run with one, whose k and penalty are used; None: the middle candidates",
    ),
    # Checkpoints
    "checkpoint.every_epochs": Field(
        5.0, above(0), "time between two checkpoints; the last step is always saved", "epochs", may_change=FREE
    ),
    "checkpoint.every_steps": Field(None, optional(integer(1)), "the same in steps", "steps", may_change=FREE),
    "checkpoint.every_images": Field(
        None, optional(integer(1)), "the same in training images", "images", may_change=FREE
    ),
    "checkpoint.keep": Field(
        2,
        integer(1),
        "number of newest checkpoints to keep, in addition to the best by validation",
        "checkpoints",
        may_change=FREE,
    ),
}


def names_of(field: str) -> tuple[str, ...]:
    """The names that a field of fixed choices allows."""
    allowed = FIELDS[field].allowed
    if isinstance(allowed, Named):
        raise TypeError(f"the names of {field} are those of a table, which may grow")
    return allowed.names
