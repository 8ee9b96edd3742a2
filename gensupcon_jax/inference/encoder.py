"""A trained encoder, ready to use: images in, features and classes out."""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from gensupcon_jax.cluster.sharding import BATCH, REPLICATED, batch_sharding, make_mesh, place, replicated
from gensupcon_jax.data.input_pipeline import damaged_images, padded_batches
from gensupcon_jax.data.splits import AnySplit, EncodedSplit, Split
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.features import fitting_batch_size
from gensupcon_jax.extras import quiet_tensorflow, require_tensorflow
from gensupcon_jax.inference import pixels
from gensupcon_jax.inference.images import ImageFiles, find_images
from gensupcon_jax.inference.predictors import Predictions, Predictor, choose_predictor
from gensupcon_jax.inference.settings import checked
from gensupcon_jax.inference.sources import Source, read_source
from gensupcon_jax.method.objectives import Prediction
from gensupcon_jax.paths import Path
from gensupcon_jax.score_names import COLUMN_WORDS
from gensupcon_jax.views.augment import resize

Images = Any  # an array [image, height, width, channel], arrays, PIL images, paths, a folder, or ImageFiles


class Outputs(NamedTuple):
    """What an encoder computes for a batch of images.

    indices [image]: rows in the images that were passed.  logits: of the classifier, None where the encoder has none.
    """

    indices: Int[np.ndarray, "image"]
    features: Float[np.ndarray, "image feature"]
    logits: Float[np.ndarray, "image class"] | None


class Encoder:
    """A trained encoder: `Encoder.load(source)`.

    Features are those of the run's own evaluation: image files are decoded, turned upright, center-cropped and resized in the
    same way, and normalized with the mean and standard deviation that it was trained with.

        encoder = gsc.Encoder.load("runs/photos")
        encoder.embed("holiday")  # float32 [image, feature]
        encoder.predict(["cat.jpg", "dog.jpg"]).classes
    """

    def __init__(self, source: Source, devices: Sequence[jax.Device] | None = None):
        self._source = source
        self._mesh = make_mesh(devices)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        step: int | str = "last",
        devices: Sequence[jax.Device] | None = None,
        **given: Any,
    ) -> "Encoder":
        """The encoder of a workdir, of a file of weights (ours, timm's, torchvision's or SupContrast's), or of a .stablehlo file.

        step: of a workdir: "last" | "best" (by validation) | the number of a saved step.  devices: None: all of them.
        given: what a file of another program does not say: architecture, image_size, mean, std, class_names, center_share. What
        is not given is assumed as timm does, and a sentence on standard error says so.
        Raises UserError for a source without an encoder, and for a step that is not saved (the saved ones are listed).

            Encoder.load("runs/photos", step="best")
            Encoder.load("resnet50.safetensors", image_size=224)
        """
        read = read_source(source, step=step, given=checked(given))
        for note in read.notes:
            _say(note)
        return cls(read, devices)

    def __repr__(self) -> str:
        step = "" if self.step is None else f", step {self.step}"
        shape = " x ".join(map(str, self.image_shape))
        things = COLUMN_WORDS[self._source.label_kind]
        classes = f", {len(self.class_names)} {things}" if self.class_names else ""
        return f"Encoder({self.source!r}{step}: images {shape} -> {self.num_features} features{classes})"

    @property
    def source(self) -> str:
        """The path it was read from."""
        return self._source.name

    @property
    def step(self) -> int | None:
        """The step of the checkpoint; None where the source does not say it."""
        return self._source.step

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that it takes as they are; others are cropped and resized."""
        return self._source.preparation.image_shape

    @property
    def num_features(self) -> int:
        """Number of features per image."""
        return self._source.num_features

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that it was trained with; empty where the source does not say them."""
        return self._source.class_names

    @property
    def center_share(self) -> float:
        """Share of the shorter side of an image that the center crop keeps."""
        return self._source.preparation.center_share

    @property
    def mean(self) -> Float[np.ndarray, "channel"]:
        """Mean of each channel, 0..1, that images are normalized with."""
        return self._source.preparation.mean

    @property
    def std(self) -> Float[np.ndarray, "channel"]:
        """Standard deviation of each channel, 0..1, that images are normalized with."""
        return self._source.preparation.std

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the weights and of how images are prepared: equal where features are comparable."""
        return self._source.fingerprint

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what the source does not say and is assumed."""
        return self._source.notes

    def preprocess(self, image: Any) -> UInt8[np.ndarray, "height width channel"]:
        """An image as the encoder takes it: upright, center-cropped, resized, uint8 of `image_shape`.

        image: path, PIL image, or array [height, width, channel] or [height, width], uint8 or float in 0..1.  An array that has
        the size of `image_shape` is not cropped.  Large JPEG files are decoded at a smaller scale, as in the evaluation: their
        path gives the run's own features exactly, a PIL image of them almost.
        """
        if isinstance(image, str | os.PathLike):
            return pixels.read_prepared(find_images([image]), self.image_shape, self.center_share)
        return pixels.prepared(image, self.image_shape, self.center_share)

    def embed(
        self, images: Images, *, batch_size: int = 64, progress: bool = False
    ) -> Float[np.ndarray, "image feature"]:
        """Features of images, one row per image, in order.

        images: an array [image, height, width, channel], uint8 or float in 0..1; a list of arrays, PIL images and paths; the path
        of a folder, whose images come in the order of `find_images(folder).names`; or what `find_images` returns.
        Images of any sizes are cropped and resized as by `preprocess`.  Gray images are repeated for an encoder of color images;
        color images become gray for one of gray images, and a sentence on standard error says so.
        batch_size: over all devices.  progress: whether a progress bar is shown.
        Raises UserError that names the files that cannot be decoded.
        """
        return self._all(images, batch_size, progress).features

    def predict(self, images: Images, *, batch_size: int = 64) -> Predictions:
        """The class of each image and the probabilities of all classes; images as in `embed`.

        By the classifier of the run, else by the linear probe that it kept, else by its k-NN on the training images.
        """
        outputs = self._all(images, batch_size, False)
        return self.classify(outputs.features, outputs.logits)

    def classify(
        self, features: Float[np.ndarray, "image feature"], logits: Float[np.ndarray, "image class"] | None = None
    ) -> Predictions:
        """The predictions for outputs of this encoder; UserError where it has no classifier, probe or training images."""
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise UserError(
                f"features have shape {features.shape}; allowed: [image, {self.num_features}], as `embed` returns them"
            )
        return self._predictor(features, logits)

    def check_predicts(self) -> None:
        """UserError where it has no classifier, probe or training images, so that `classify` would fail."""
        _ = self._predictor

    def outputs(self, found: ImageFiles, *, batch_size: int = 64) -> Iterator[Outputs]:
        """Features and logits of image files, a batch at a time, in order.

        Files whose content turns out to be damaged are left out, and appended to `found.damaged` with the reason.
        """
        split = self._seen(found)
        rows = np.arange(split.num_images)
        while len(rows):
            batches = self._batches(split.subset(rows), batch_size, of=split.num_images)
            done = 0
            try:
                for features, logits in batches:
                    part = rows[done : done + len(features)]
                    done += len(features)
                    yield Outputs(part, features, logits)
                return
            except UserError:
                damaged = damaged_images(split, rows[done : done + self._batch_size(batch_size, split.num_images)])
                if not damaged:
                    raise
                found.damaged.extend((found.names[row], problem) for row, problem in damaged.items())
                rows = np.array([row for row in rows[done:] if row not in damaged], np.int64)

    def predict_fn(self) -> Callable[[Any], Prediction]:
        """A function of uint8 batches that lie on the devices, of any square size, as `evaluate_network` takes it."""
        variables, apply_fn = self._compiled
        size, share = self.image_shape[0], self.center_share
        resize_fn = jax.jit(resize, static_argnames=("size", "center_share"))

        def predict(images: Any) -> Prediction:
            seen = images if images.shape[1] == size else resize_fn(images, size=size, center_share=share)
            features, logits = apply_fn(variables, seen)
            return Prediction(features=features, logits=logits)

        return predict

    def extraction(self, batch_size: int, num_images: Sequence[int] = ()) -> dict[str, Any]:
        """The arguments of `extract` for this encoder's devices; num_images: of each split, for the least padding."""
        return {
            "batch_size": fitting_batch_size(batch_size, num_images, self._mesh.size),
            "sharding": batch_sharding(self._mesh),
        }

    def channels_note(self, found: ImageFiles) -> str | None:
        """A sentence where image files have other channels than the encoder, which converts them; None where they fit."""
        return pixels.channels_note(int(found.split.headers.gray.sum()), len(found.names), self.image_shape[2])

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return choose_predictor(self._source, self._embed_split)

    @functools.cached_property
    def _compiled(self) -> tuple[Any, Any]:
        """The variables on every device, and the function that is compiled for each shape of a batch."""
        everywhere, apply_fn = replicated(self._mesh), self._source.apply_fn
        if self._source.by_device:
            apply_fn = jax.shard_map(apply_fn, mesh=self._mesh, in_specs=(REPLICATED, BATCH), out_specs=BATCH)
        return place(dict(self._source.variables), everywhere), jax.jit(apply_fn, out_shardings=everywhere)

    def _all(self, images: Images, batch_size: int, progress: bool) -> Outputs:
        split, names = self._split_of(images)
        parts = self._batches(split, batch_size, of=split.num_images)
        features, logits = [], []
        with tqdm(total=split.num_images, unit=" images", disable=not progress) as bar:
            try:
                for some_features, some_logits in parts:
                    features.append(some_features)
                    logits.append(some_logits)
                    bar.update(len(some_features))
            except UserError as error:
                damaged = self._damaged(split, sum(map(len, features)), batch_size)
                if not damaged:
                    raise
                raise pixels.undecodable([(names[row], why) for row, why in damaged.items()]) from error
        joined = None if logits[0] is None else np.concatenate(logits)
        return Outputs(np.arange(split.num_images), np.concatenate(features), joined)

    def _damaged(self, split: AnySplit, done: int, batch_size: int) -> dict[int, str]:
        """Row -> why it cannot be decoded, of the batch after the first `done` images."""
        if not isinstance(split, EncodedSplit):
            return {}
        end = min(done + self._batch_size(batch_size, split.num_images), split.num_images)
        return damaged_images(split, np.arange(done, end))

    def _split_of(self, images: Images) -> tuple[AnySplit, tuple[str, ...]]:
        """The images as the input pipeline reads them, and the names of files."""
        if isinstance(images, Iterator) or (isinstance(images, np.ndarray) and images.dtype.kind in "UO"):
            images = list(images)
        if isinstance(images, str | os.PathLike):
            found: Any = find_images(images)
        else:
            found = self._one_kind(images) if isinstance(images, list | tuple) else images
        if not isinstance(found, ImageFiles):
            arrays, num_gray = pixels.prepared_batch(found, self.image_shape, self.center_share)
            _say(pixels.channels_note(num_gray, len(arrays), self.image_shape[2]))
            return Split(arrays, np.zeros((len(arrays), 1), np.float32)), ()
        if found.damaged:
            raise pixels.undecodable(found.damaged)
        _say(self.channels_note(found))
        return self._seen(found), found.names

    def _one_kind(self, images: Sequence[Any]) -> Any:
        """The files, where all of these are paths; else the images, with those of paths read."""
        are_paths = [isinstance(each, str | os.PathLike) for each in images]
        if images and all(are_paths):
            return find_images(images)
        return [self.preprocess(each) if is_path else each for each, is_path in zip(images, are_paths, strict=True)]

    def _seen(self, found: ImageFiles) -> EncodedSplit:
        """Image files as this encoder takes them."""
        if found.names:
            require_tensorflow(f"{found.names[0]} is an image file")
            quiet_tensorflow()
        return pixels.seen(found.split, self.image_shape, self.center_share)

    def _embed_split(self, split: AnySplit) -> Float[np.ndarray, "image feature"]:
        return np.concatenate([features for features, _ in self._batches(split, 64, of=split.num_images)])

    def _batch_size(self, batch_size: int, num_images: int) -> int:
        """Images per batch: a multiple of the devices, and not much more than there are images."""
        if not isinstance(batch_size, Integral) or isinstance(batch_size, bool) or batch_size < 1:
            raise UserError(f"batch_size is {batch_size!r}; allowed: a whole number >= 1")
        enough = min(int(batch_size), 1 << (num_images - 1).bit_length())
        return -(-enough // self._mesh.size) * self._mesh.size

    def _batches(
        self, split: AnySplit, batch_size: int, *, of: int
    ) -> Iterator[tuple[Float[np.ndarray, "image feature"], Float[np.ndarray, "image class"] | None]]:
        """Features and logits of every image once, in order.  of: number of images, which bounds the batch."""
        variables, apply_fn = self._compiled
        size = self._batch_size(batch_size, of)
        for images, is_real in padded_batches(split, size, batch_sharding(self._mesh)):
            features, logits = apply_fn(variables, images)
            # Fetched immediately: more than 32 unawaited calls on several CPU devices hang.
            yield np.asarray(features)[is_real], None if logits is None else np.asarray(logits)[is_real]


def _say(note: str | None) -> None:
    if note is not None:
        print(f"note: {note}", file=sys.stderr, flush=True)
