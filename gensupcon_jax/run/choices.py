"""What a run on a folder of photos chooses by itself, and why: a function of the folder and the kind of device only."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

GIVEN = "given"


class Photos(NamedTuple):
    """What the choices depend on.

    num_images: of training.  side: the median of the shorter sides, in pixels.  lacks: the splits to cut from them.  place: what
    such a split would be, a folder or a split of a list.  num_unlabeled: of the training images.  square: height and width of
    all of them; None: they differ.
    """

    num_images: int
    num_classes: int
    side: int
    lacks: tuple[str, ...] = ("validation", "test")
    place: str = "folder"
    num_unlabeled: int = 0
    square: int | None = None


class Machine(NamedTuple):
    """The kind of the devices ("cpu", "gpu", "tpu") and their number over all processes."""

    kind: str
    num_devices: int = 1


class StartingWeights(NamedTuple):
    """The source of given weights, its fields of `model`, and the height and width of its training images (None: not known)."""

    source: str
    fields: Mapping[str, Any]
    image_size: int | None


class Choice(NamedTuple):
    """A field, its value, and the reason; `GIVEN` for one that the user has set."""

    field: str
    value: Any
    why: str


class _Scale(NamedTuple):
    """What suits a kind of machine.

    image_size: the largest.  batch_size: the largest.  rate: of the peak per 256 images of a batch.  images: the training images
    that a run sees.  epochs: fewest and most.
    """

    device: str
    image_size: int
    batch_size: int
    rate: float
    images: int
    epochs: tuple[int, int]


# Measured on 2 cores: 300 photographs take 2 to 3 minutes. With 96 pixels a step takes 1.9 times as long, for the same accuracy.
_CPU = _Scale("a CPU", image_size=64, batch_size=64, rate=0.5, images=16_800, epochs=(20, 200))
# Authors' code: rate 0.5 for a batch of 1024. The lengths are ours and not measured.
_ACCELERATOR = _Scale("an accelerator", image_size=224, batch_size=256, rate=0.125, images=500_000, epochs=(100, 400))

# The stem of 7x7 divides the side by 4, the stages of resnet_small by 4 more: its maps at 64 pixels are 16, 8 and 4. Below 64 the
# last map would be 2 or 3 pixels wide, where XLA's 3x3 convolutions on a CPU are slowest; the stem of 3x3 keeps the side.
_SIZES = (32, 64, 96, 128, 160, 192, 224)
_SMALLEST_FOR_IMAGENET_STEM = 64
_SMALLEST_SQUARE = 8  # handwritten digits
_TUNING = 0.1  # given weights move with a tenth of the rate of weights that are drawn
_TUNING_EPOCHS = 0.25
_BATCHES = 3  # an epoch has at least so many
_BLOCK = 32
_HIGH_RATE = 0.1  # from here on the usual start of a warm-up, 0.01, is low enough
_WARMUP, _EVALUATIONS = 0.0625, 4


def choices(
    photos: Photos, machine: Machine, given: Mapping[str, Any], start: StartingWeights | None = None
) -> list[Choice]:
    """The choices for these photos on this machine, in the order of the table; what is given is used as it is.

    given: field -> value, of the fields that the user has set.
    """
    scale = _CPU if machine.kind == "cpu" else _ACCELERATOR
    made: dict[str, Choice] = {}

    def choose(field: str, choice_fn: Callable[[], tuple[Any, str]]) -> Any:
        made[field] = Choice(field, given[field], GIVEN) if field in given else Choice(field, *choice_fn())
        return made[field].value

    fractions = [
        choose(f"dataset.{split}_fraction", lambda split=split: _fraction(photos, split)) for split in photos.lacks
    ]
    num_train = photos.num_images - sum(
        round(fraction * (photos.num_images - photos.num_unlabeled)) for fraction in fractions
    )
    if given.get("dataset.train_images") is not None:
        num_train = min(num_train, given["dataset.train_images"])
    size = choose("dataset.image_size", lambda: _image_size(photos, scale, start))
    own = given.get("model.name") if start is None else None
    for field, value, why in _network(scale, size or photos.side, start, own):
        choose(field, lambda value=value, why=why: (value, why))
    batch = choose("batch_size", lambda: _batch_size(num_train, scale, machine))
    if choose("mix.kind", lambda: _mixing(scale, batch // machine.num_devices)) != "none":
        choose("mix.block", lambda: _block(batch, machine))
    rate = choose("optimizer.learning_rate", lambda: _rate(batch, scale, start))
    if rate < _HIGH_RATE:
        choose("optimizer.warmup_learning_rate", lambda: (float(f"{rate / 10:.4g}"), "a tenth of the peak"))
    if any(given.get(field) is not None for field in ("steps", "images")):
        return list(made.values())  # the length is given in another unit
    epochs = choose("epochs", lambda: _epochs(num_train, scale, start))
    if not any(given.get(f"optimizer.warmup_{unit}") is not None for unit in ("steps", "images")):
        choose(
            "optimizer.warmup_epochs",
            lambda: (round(_WARMUP * epochs, 2), f"a sixteenth of {epochs:g} epoch{'s' * (epochs != 1)}"),
        )
    for group, what in (("evaluate", "evaluations"), ("checkpoint", "checkpoints")):
        if not any(given.get(f"{group}.every_{unit}") is not None for unit in ("steps", "images")):
            choose(f"{group}.every_epochs", lambda what=what: (epochs / _EVALUATIONS, f"{_EVALUATIONS} {what} in all"))
    return list(made.values())


def _fraction(photos: Photos, split: str) -> tuple[float, str]:
    usual, classes = {"test": 0.2, "validation": 0.1}[split], photos.num_classes
    num_labeled = photos.num_images - photos.num_unlabeled
    lacks = f"no {photos.place} {split}"
    if round(usual * num_labeled) >= classes:
        return usual, f"{round(usual * num_labeled)} of {num_labeled} photos; {lacks}"
    return classes / num_labeled, f"{classes} of {num_labeled} photos: one for each class; {lacks}"


def _image_size(photos: Photos, scale: _Scale, start: StartingWeights | None) -> tuple[int, str]:
    if start is not None and start.image_size is not None:
        return start.image_size, f"that of {start.source}"
    if photos.square is not None and _SMALLEST_SQUARE <= photos.square <= scale.image_size:
        return photos.square, "that of all photos, which are squares"
    reached = max([size for size in _SIZES if size <= photos.side], default=_SIZES[0])
    if reached > scale.image_size:
        return (
            scale.image_size,
            f"as much as {scale.device} trains in minutes; half of the photos have {photos.side} or more",
        )
    return reached, f"half of the photos have {photos.side} pixels or more on their shorter side"


def _network(scale: _Scale, size: int, start: StartingWeights | None, own: str | None) -> list[tuple[str, Any, str]]:
    """own: the network that the user has named."""
    if start is not None:
        return [(f"model.{name}", value, f"that of {start.source}") for name, value in start.fields.items()]
    if own is not None:
        of_own = f"that of {own}"
        return [("model.name", own, GIVEN), ("model.width", None, of_own), ("model.stem", "auto", "by the image size")]
    if scale is _ACCELERATOR:
        stem = "imagenet" if size >= _SMALLEST_FOR_IMAGENET_STEM else "cifar"
        return [
            ("model.name", "resnet50", "an accelerator trains it in minutes"),
            ("model.width", None, "its own width"),
            ("model.stem", stem, f"for images of {size} pixels"),
            ("model.dtype", "bfloat16", "twice as fast on an accelerator"),
        ]
    is_large = size >= _SMALLEST_FOR_IMAGENET_STEM
    return [
        ("model.name", "resnet_small", "a CPU trains it in minutes"),
        ("model.width", 32 if is_large else 16, f"fast enough at {size} pixels"),
        ("model.stem", "imagenet" if is_large else "cifar", f"leaves maps of 4 or more pixels of {size}"),
    ]


def _batch_size(num_train: int, scale: _Scale, machine: Machine) -> tuple[int, str]:
    local = _power_of_2(min(scale.batch_size, num_train / _BATCHES) / machine.num_devices)
    batch = max(2, local * machine.num_devices)
    if batch >= scale.batch_size:
        return batch, f"as much as {scale.device} needs"
    return batch, f"{_BATCHES} or more batches of {num_train} training images"


def _mixing(scale: _Scale, local: int) -> tuple[str, str]:
    if scale is _CPU:
        return "none", "mixed images pay off in longer runs"
    if local < 2:
        return "none", "a device has no other images to mix with"
    return "mixup_cutmix", "the paper's method"


def _block(batch: int, machine: Machine) -> tuple[int, str]:
    local = batch // machine.num_devices
    block = max([size for size in range(2, min(_BLOCK, local) + 1) if local % size == 0], default=max(2, local))
    return block, f"divides the {local} images per device"


def _rate(batch: int, scale: _Scale, start: StartingWeights | None) -> tuple[float, str]:
    share, more = (1, "") if start is None else (_TUNING, ", of which a tenth, as the weights are given")
    return float(f"{share * scale.rate * batch / 256:.4g}"), f"{scale.rate:g} x batch / 256{more}"


def _epochs(num_train: int, scale: _Scale, start: StartingWeights | None) -> tuple[float, str]:
    low, high = scale.epochs
    share = 1 if start is None else _TUNING_EPOCHS
    epochs = float(max(1, round(share * min(high, max(low, scale.images / num_train)))))
    more = "" if start is None else ", of which a quarter, as the weights are given"
    return epochs, f"{scale.images:,} images in all, within {low} to {high} epochs{more}"


def _power_of_2(number: float) -> int:
    return 1 << max(0, int(number).bit_length() - 1)
