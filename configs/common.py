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
    config.objective = "contrastive"  # contrastive | cross_entropy (a teacher, the baseline) | linear_probe (2nd stage)
    config.seed = 0  # every random draw of the run follows from it
    config.batch_size = 1024  # images a step over all devices, before views [authors' code]
    # Every duration stands three times: in epochs, in steps, in images. The first that is given of steps, images, epochs counts.
    config.epochs = 500.0  # passes over the training split [authors' code]
    config.steps = optional()  # length in steps; 0: only judge the encoder
    config.images = optional()  # length in training images
    config.log_steps = 10  # steps between two rows of training metrics [ours]
    config.dataset = dataset()
    config.augment = augment()
    config.mix = mix()
    config.model = model()
    config.classifier = classifier()
    config.loss = loss()
    config.momentum_encoder = momentum_encoder()
    config.teacher = teacher()
    config.optimizer = optimizer()
    config.evaluate = evaluate()
    config.checkpoint = checkpoint()
    return config


def dataset() -> ConfigDict:
    """Where images and labels come from; class count, image size, mean and standard deviation follow from the data."""
    group = ConfigDict()
    # digits | tfds:<name>[:version] | folder:<path> of <split>/<class>/<image> | arrays (handed to `train_and_evaluate`)
    group.name = "digits"
    group.folder = optional()  # where TFDS keeps its data sets; None: TFDS's own default
    group.train_images = optional()  # use only so many training images, the same share of each class; None: all
    group.train_split = optional()  # name of the split, "train[:90%]" in TFDS's syntax; None: the usual one
    group.validation_split = optional()  # the same; None: the usual one, or cut from training
    group.test_split = optional()  # the same; None: the usual one, else the validation split, else cut from training
    group.validation_fraction = 0.1  # share of the training images that is cut off where there is no validation split
    group.test_fraction = 0.2  # the same for a test split; both are stratified and always the same images
    group.image_size = optional()  # pixels of what the network sees; None: the images' own, or 32 to 224 by their sizes
    group.center_share = 0.875  # of the shorter side: what an evaluation keeps of an encoded image [usual: 224 of 256]
    group.memory_limit = (
        2048.0  # MiB; sets with images of one size up to this are kept in memory, cropped on the device
    )
    group.num_threads = optional()  # that decode images; None: one for each core
    group.remainder = "drop"  # images that fill no batch: drop (others in each epoch) | carry (into the next epoch)
    group.skip_damaged = False  # leave out images that cannot be decoded, and list them in the workdir
    group.max_damaged_share = 0.01  # more damaged images than this share are an error all the same
    group.input_bound_share = (
        0.1  # say that a run waits for its images where it does so for more than this share of its time
    )
    return group


def augment() -> ConfigDict:
    """Random changes of each view, drawn image by image on the device [authors' code, after SimCLR]."""
    group = ConfigDict()
    group.num_views = 2  # views of an image; 2 or more for the contrastive objective, 1 for the others
    # simclr: crop, flip, color jitter, gray, blur | auto: crop, flip, AutoAugment | rand: crop, flip, RandAugment
    # | cutout: crop, flip, a gray square | none: only normalized. Fields that a policy does not name are not read by it.
    group.policy = "simclr"
    group.crop_scale = (0.2, 1.0)  # smallest and largest share of the area that a crop keeps
    group.crop_ratio = (3 / 4, 4 / 3)  # smallest and largest width / height of a crop before it is resized
    group.flip_probability = 0.5  # left-right flip
    group.jitter_probability = 0.8  # color jitter as a whole
    group.brightness = 0.4  # factor drawn from 1 +- this
    group.contrast = 0.4  # factor drawn from 1 +- this
    group.saturation = 0.4  # factor drawn from 1 +- this; nothing happens to one-channel images
    group.hue = 0.1  # shift drawn from +- this, in turns of the color circle, at most 0.5; not for one channel
    group.gray_probability = 0.2  # all color removed; nothing happens to one-channel images
    group.blur_probability = 0.0  # Gaussian blur [authors' code: none on CIFAR; MoCo v2: 0.5]
    group.blur_sigma = (0.1, 2.0)  # smallest and largest width of the blur, in pixels of a 224-pixel image [MoCo v2]
    group.auto_policy = "auto"  # cifar10 | svhn | imagenet | auto: by the data set [AutoAugment, arXiv 1805.09501]
    group.rand_num_operations = 2  # operations an image [RandAugment, arXiv 1909.13719]
    group.rand_magnitude = 9.0  # strength of each, 0 to 30 [RandAugment]
    group.cutout_size = (
        0.5  # side of the square as a share of the image's side [Cutout, arXiv 1708.04552: 16 of 32 pixels]
    )
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
    group.weights = optional()  # start from: a workdir, or a .safetensors / .pth file; None: drawn from the seed
    group.batch_norm = "sync"  # sync: statistics over all devices | local: each device its own [authors' code]
    return group


def classifier() -> ConfigDict:
    """One linear layer from features to classes: of cross_entropy and linear_probe, or beside the contrastive loss."""
    group = ConfigDict()
    group.label_smoothing = 0.0  # this share of each label is spread over all classes, 0 to below 1
    group.beside = False  # contrastive only: train a classifier behind a stop-gradient in the same run
    return group


def loss() -> ConfigDict:
    """The generalized supervised contrastive loss."""
    group = ConfigDict()
    # all: every view is anchor and contrast [authors' code] | one: first view against the others
    # | momentum: queries against the momentum encoder's keys of this batch and of the queue [paper]
    group.mode = "all"
    group.symmetric = False  # momentum only: every view is a query once, not just the first
    group.temperature = 0.1  # divides the cosine similarity of embeddings, above 0 [authors' code]
    group.base_temperature = optional(
        0.07
    )  # the loss is scaled by temperature / this; None: not scaled [authors' code]
    group.normalizer = (
        "similarity"  # similarity: by the sum of label similarities [authors' code] | count [paper, Eq. 2]
    )
    group.tile_size = optional()  # anchors a tile of the streamed softmax; None: the loss's own
    return group


def momentum_encoder() -> ConfigDict:
    """The key encoder of `loss.mode = "momentum"`: a moving average of the trained one, and the queue of its keys."""
    group = ConfigDict()
    group.momentum = 0.999  # the share of the old average that stays at a step, 0 to 1 [MoCo, arXiv 1911.05722]
    group.schedule = "constant"  # constant | cosine: from `momentum` to 1 over the run [BYOL, arXiv 2006.07733]
    group.queue_size = 0  # keys kept from earlier steps, a multiple of the batch; 0: only the keys of this batch
    return group


def teacher() -> ConfigDict:
    """A trained classifier whose predictions are labels beside the true ones."""
    group = ConfigDict()
    group.kind = (
        "none"  # none | workdir (of this program) | stablehlo | weights (.safetensors, .pth) | callable (Python)
    )
    group.path = optional()  # the workdir or the file
    group.architecture = "resnet50"  # of kind weights: a name of `model.name`; it computes in `model.dtype`
    group.image_size = optional()  # pixels that it was trained on; None: the workdir's, the artifact's, or the data's
    group.mean = optional()  # of each channel, 0..1, that it was trained with; None: the workdir's, or the data's
    group.std = optional()  # the same for the standard deviation
    group.weight = (
        1.0  # loss = loss of the labels + weight x loss of the predictions; inf: predictions only [authors' code]
    )
    group.temperature = 1.0  # its logits are divided by this before the softmax, above 0 [authors' code]
    group.allow_poor = False  # go on although it is below twice chance on the validation split
    return group


def optimizer() -> ConfigDict:
    """SGD with momentum; warm-up, then a cosine, step by step [authors' code]."""
    group = ConfigDict()
    group.name = "sgd"  # sgd | lars | rmsprop | adam | adamw
    group.learning_rate = 0.5  # the peak
    group.schedule = "cosine"  # cosine | step (x decay_factor at decay_epochs) | constant
    group.schedule_per = "step"  # step | epoch: the rate after the warm-up changes once an epoch [authors' code]
    group.warmup_epochs = 10.0  # time in which the rate rises in a line to the peak
    group.warmup_steps = optional()
    group.warmup_images = optional()
    group.warmup_learning_rate = 0.01  # where the warm-up starts
    group.final_learning_rate = 5e-4  # where the cosine ends
    group.decay_epochs = (60, 75, 90)  # of the step schedule [authors' code, linear stage]
    group.decay_factor = 0.2  # of the step schedule [authors' code, linear stage]
    group.momentum = 0.9  # of sgd, lars and rmsprop; the first beta of adam and adamw
    group.nesterov = False  # of sgd and lars
    group.second_momentum = 0.999  # decay of the squared gradients: of rmsprop (0.9 there is usual), adam, adamw
    group.trust_coefficient = 0.001  # of lars
    group.weight_decay = 1e-4
    group.weight_decay_mode = (
        "coupled"  # coupled: added to the gradient | decoupled: added to the update (adamw: always)
    )
    group.max_skipped_steps = (
        0  # steps that may be skipped because something is not finite, before the run stops [ours]
    )
    group.exclude_bias_and_norm = False  # no weight decay, and no lars scaling, for biases and BatchNorm
    return group


def evaluate() -> ConfigDict:
    """How frozen features are judged: settings are chosen on the validation split, test is reported once [ours]."""
    group = ConfigDict()
    group.every_epochs = 5.0  # time between two evaluations on the validation split; 0: only at the end
    group.every_steps = optional()
    group.every_images = optional()
    group.linear_probe = True  # fit the probe of the frozen features at the end; False where they are too many for it
    group.batch_size = 512  # images at once over all devices
    group.train_images = optional()  # so many training images are compared with by k-NN and probe; None: all
    group.neighbors = (1, 3, 5, 10, 20, 50, 200)  # the k of k-NN is one of these
    group.knn_temperature = 0.07  # a neighbor's vote weighs exp(cosine / this)
    group.probe_penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # the linear probe's L2 weight is one of these
    return group


def checkpoint() -> ConfigDict:
    """What is kept to continue from."""
    group = ConfigDict()
    group.every_epochs = 5.0  # time between two checkpoints; the last step is always saved
    group.every_steps = optional()
    group.every_images = optional()
    group.keep = 2  # newest checkpoints kept; the best by validation is kept beside them
    return group
