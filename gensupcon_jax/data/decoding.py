"""Crops of encoded images on the host: boxes drawn in NumPy, each image decoded once by TensorFlow."""

import collections
import contextlib
import ctypes
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from gensupcon_jax.data.channels import to_gray
from gensupcon_jax.data.splits import EncodedSplit, Headers
from gensupcon_jax.errors import UserError
from gensupcon_jax.text import one_line

_CROP_ATTEMPTS = 10  # as torchvision
_DRAWS = 2 * _CROP_ATTEMPTS + 2
_CROP_STREAM = 0x63726F70  # separates these draws from those of the epoch's order, which have the same seed
_JPEG_RATIOS = (1, 2, 4, 8)
_OTHER_FORMAT = len(_JPEG_RATIOS)
_WORTH_CUTTING = 0.9  # rows below the lowest box are skipped if they are a tenth of the image or more
_BATCHES_AHEAD = 2
_MOST_SHRINKING = 2.0  # bilinear interpolation reads 2 x 2 pixels: larger factors use area averaging, which is slower

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # constants of malloc.h

Number = float | int


class CropPlan(NamedTuple):
    """How each image of a batch becomes crops; boxes and rows are in decoded pixels, before the EXIF rotation.

    kinds [image]: index of the decoder.  rows [image, 2]: rows and columns to decode, from the top left; the whole image
    where a JPEG is decoded at a smaller scale.  boxes [image, view, 4]: top, left, height, width.  orientations [image]: EXIF.
    """

    kinds: Int[np.ndarray, "image"]
    rows: Int[np.ndarray, "image 2"]
    boxes: Int[np.ndarray, "image view 4"]
    orientations: Int[np.ndarray, "image"]


def crop_draws(
    seed: int, step: int, rows: slice, num_views: int, batch_size: int
) -> Float[np.ndarray, "image view 22"]:
    """Uniform numbers in 0..1 for the boxes of some rows of a step's global batch: a function of seed, step and row only."""
    bits = np.random.Philox(key=[seed + (_CROP_STREAM << 32), step]).random_raw(batch_size * num_views * _DRAWS)
    uniform = (bits >> np.uint64(11)) * 2.0**-53
    return uniform.reshape(batch_size, num_views, _DRAWS)[rows]


def random_boxes(
    draws: Float[np.ndarray, "image view 22"],
    sizes: Int[np.ndarray, "image 2"],
    *,
    scale: tuple[Number, Number],
    ratio: tuple[Number, Number],
) -> Int[np.ndarray, "image view 4"]:
    """(top, left, height, width) of random resized crops of images of these sizes (torchvision).

    As `augment.random_box` on the device: of 10 drawn boxes the first that fits is used, else the largest centered box
    with an allowed ratio.
    """
    heights, widths = (sizes[:, None, None, axis].astype(np.float64) for axis in (0, 1))
    areas = heights * widths * (scale[0] + (scale[1] - scale[0]) * draws[..., :_CROP_ATTEMPTS])
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * draws[..., _CROP_ATTEMPTS : 2 * _CROP_ATTEMPTS])
    tries = np.stack([np.round(np.sqrt(areas / ratios)), np.round(np.sqrt(areas * ratios))], -1).astype(np.int64)
    whole = sizes[:, None, None, :].astype(np.int64)
    fits = ((tries > 0) & (tries <= whole)).all(-1)
    first = fits.argmax(-1)
    drawn = np.take_along_axis(tries, first[..., None, None], axis=2)[:, :, 0]
    found = np.any(fits, axis=-1, keepdims=True)
    box_sizes = np.where(found, drawn, _fallback_sizes(sizes, ratio)[:, None])
    space = whole[:, :, 0] - box_sizes
    corners = np.where(found, np.floor(draws[..., -2:] * (space + 1)).astype(np.int64), space // 2)
    return np.concatenate([corners, box_sizes], -1)


def _fallback_sizes(sizes: np.ndarray, ratio: tuple[Number, Number]) -> np.ndarray:
    heights, widths = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    shape = widths / heights
    box_heights = np.where(shape < ratio[0], np.round(widths / ratio[0]), heights)
    box_widths = np.where(shape > ratio[1], np.round(heights * ratio[1]), widths)
    fallback = np.stack([box_heights, box_widths], -1).astype(np.int64)
    return np.clip(fallback, 1, sizes.astype(np.int64))


def center_boxes(sizes: Int[np.ndarray, "image 2"], share: Number) -> Int[np.ndarray, "image 1 4"]:
    """The centered square whose side is this share of the shorter side (0.875: the usual 224 of 256)."""
    sizes = sizes.astype(np.int64)
    sides = np.maximum(1, np.round(share * sizes.min(1))).astype(np.int64)
    corners = (sizes - sides[:, None]) // 2
    return np.concatenate([corners, sides[:, None], sides[:, None]], 1)[:, None]


def plan_crops(headers: Headers, boxes: Int[np.ndarray, "image view 4"], image_size: int) -> CropPlan:
    """Which part of each image to decode, and at which scale, so that all its boxes have enough detail.

    A JPEG whose boxes are all at least 2, 4 or 8 times as large as image_size is decoded at that smaller scale, which is
    faster and antialiased; otherwise the rows below the lowest box are skipped.
    """
    stored_sizes, boxes = _as_stored(headers, boxes.astype(np.int64))
    smallest_side = boxes[..., 2:].min((1, 2))
    scale_index = sum((smallest_side >= ratio * image_size).astype(np.int64) for ratio in _JPEG_RATIOS[1:])
    kinds = np.where(headers.jpeg, scale_index, _OTHER_FORMAT)
    ratios = np.where(headers.jpeg, np.array(_JPEG_RATIOS)[scale_index], 1)[:, None]
    decoded = -(-stored_sizes // ratios)
    corners = boxes[..., :2] // ratios[:, None]
    ends = np.minimum(-(-(boxes[..., :2] + boxes[..., 2:]) // ratios[:, None]), decoded[:, None])
    lowest = ends[..., 0].max(1)
    rows = decoded.copy()
    rows[:, 0] = np.where((kinds == 0) & (lowest <= _WORTH_CUTTING * decoded[:, 0]), lowest, decoded[:, 0])
    planned = np.concatenate([corners, np.maximum(ends - corners, 1)], -1)
    return CropPlan(
        kinds.astype(np.int32), rows.astype(np.int32), planned.astype(np.int32), headers.orientations.astype(np.int32)
    )


def _as_stored(headers: Headers, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and boxes in stored orientation, from those of the upright image."""
    turned = headers.orientations >= 5
    sizes = headers.sizes.astype(np.int64)
    tops, lefts, heights, widths = np.moveaxis(boxes, -1, 0)
    from_right = sizes[:, None, 1] - lefts - widths
    from_bottom = sizes[:, None, 0] - tops - heights
    which = headers.orientations[:, None]
    lefts = np.where(np.isin(which, (2, 3, 6, 7)), from_right, lefts)
    tops = np.where(np.isin(which, (3, 4, 7, 8)), from_bottom, tops)
    upright = np.stack([tops, lefts, heights, widths], -1)
    swapped = upright[..., [1, 0, 3, 2]]
    return np.where(turned[:, None], sizes[:, ::-1], sizes), np.where(turned[:, None, None], swapped, upright)


def crop_batches(
    split: EncodedSplit,
    batches: Iterable[tuple[Int[np.ndarray, "image"], CropPlan]],
    *,
    batch_size: int,
    num_views: int,
) -> Iterator[tuple[Int[np.ndarray, "image"], UInt8[np.ndarray, "image view size size channel"]]]:
    """(indices, crops) for each (indices, plan), in order, decoded in parallel a few batches ahead.

    batch_size: images per batch.  Raises UserError that names an image that cannot be read or decoded.
    """
    import tensorflow as tf  # imported here, as it takes 4 s and images in memory do not need it

    _keep_freed_memory()
    under_way: collections.deque[np.ndarray] = collections.deque()
    own_errors: list[Exception] = []  # Python errors inside tf.data, which would wrap them in a long message

    def generate() -> Iterator[tuple]:
        try:
            for indices, plan in batches:
                under_way.append(indices)
                yield (indices, *plan)
        except Exception as error:
            own_errors.append(error)
            raise

    def read(indices):
        return np.array(split.sources(indices), object)

    def with_sources(indices, *plan):
        sources = tf.ensure_shape(tf.numpy_function(read, [indices], tf.string), [batch_size])
        return (sources, *plan)

    def crop(*arguments):
        try:
            return _crops(*arguments, image_size=split.image_size, num_channels=split.num_channels)
        except Exception as error:
            own_errors.append(error)
            raise

    crops_shape = [num_views, split.image_size, split.image_size, split.num_channels]

    def decode(source, kind, rows, boxes, orientation):
        pixels = _decode(tf, tf.io.read_file(source) if split.are_paths else source, kind, rows)
        crops = tf.numpy_function(crop, [pixels, boxes, orientation], tf.uint8, stateful=False)
        return tf.ensure_shape(crops, crops_shape)

    shapes = ((), (), (2,), (num_views, 4), ())
    signature = tuple(
        tf.TensorSpec((batch_size, *shape), tf.int64 if place == 0 else tf.int32) for place, shape in enumerate(shapes)
    )
    threads = split.num_threads or os.cpu_count() or 1
    data = tf.data.Dataset.from_generator(generate, output_signature=signature)
    data = data.map(with_sources, num_parallel_calls=2, deterministic=True)
    # A batch is split, its images are decoded in parallel, and it is assembled again.
    data = data.unbatch().map(decode, num_parallel_calls=threads, deterministic=True)
    data = data.batch(batch_size).prefetch(_BATCHES_AHEAD)
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads + 2
    iterator = iter(data.with_options(options))
    while True:
        try:
            crops = next(iterator).numpy()
        except StopIteration:
            return
        except tf.errors.OpError as error:
            if own_errors:
                raise own_errors[0] from error
            raise UserError(_damage_message(split, under_way[0], error)) from error
        yield under_way.popleft(), crops


def decode_upright(encoded: bytes, orientation: int, num_channels: int) -> UInt8[np.ndarray, "height width channel"]:
    """One whole image in upright orientation; ValueError, with TensorFlow's reason, where it cannot be decoded."""
    import tensorflow as tf

    try:
        pixels = _in_color(tf, encoded)
    except tf.errors.OpError as error:
        raise ValueError(tensorflow_reason(error)) from error
    pixels = _turned(pixels.numpy(), orientation)
    return pixels if num_channels == 3 else to_gray(pixels)


def center_crop(
    pixels: UInt8[np.ndarray, "height width 3"], share: Number, image_size: int, num_channels: int
) -> UInt8[np.ndarray, "size size channel"]:
    """The center crop of a decoded, upright image, resized as the crops of encoded images are."""
    boxes = center_boxes(np.array([pixels.shape[:2]]), share)[0]
    return _crops(pixels, boxes, 1, image_size=image_size, num_channels=num_channels)[0]


def read_encoded(split: EncodedSplit, index: int) -> bytes:
    """The encoded bytes of one image; OSError where they cannot be read."""
    (source,) = split.sources(np.array([index]))
    if not split.are_paths:
        return source
    from etils import epath

    return epath.Path(os.fsdecode(source)).read_bytes()


def _decode(tf: Any, encoded, kind, rows):
    """The graph that decodes the part of one image that its crops need, to [height, width, 3] uint8."""

    def at_scale(ratio):
        return lambda: tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)

    decoders = [
        lambda: tf.io.decode_and_crop_jpeg(encoded, tf.concat([[0, 0], rows], 0), channels=3),
        *(at_scale(ratio) for ratio in _JPEG_RATIOS[1:]),
        # Decoded as color: TensorFlow decodes to one channel only for JPEG and PNG.
        lambda: _in_color(tf, encoded),
    ]
    return tf.switch_case(kind, decoders)


def _in_color(tf: Any, encoded):
    """The graph that decodes an image of any format to [height, width, 3] uint8; of transparent pixels the color is taken."""
    return tf.cond(
        tf.strings.substr(encoded, 8, 4) == b"WEBP",
        lambda: tf.io.decode_webp(encoded, channels=0)[0, :, :, :3],  # `decode_image` refuses WebP with transparency
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def _crops(
    pixels: np.ndarray, boxes: np.ndarray, orientation: Any, *, image_size: int, num_channels: int
) -> np.ndarray:
    """The crops of a decoded image, [view, image_size, image_size, num_channels] uint8, upright."""
    import cv2  # with TensorFlow's resize, two crops take as long as decoding

    crops = np.empty((len(boxes), image_size, image_size, 3), np.uint8)
    for view, (top, left, height, width) in enumerate(boxes):
        shrinks_much = max(height, width) > _MOST_SHRINKING * image_size
        interpolation = cv2.INTER_AREA if shrinks_much else cv2.INTER_LINEAR
        crop = pixels[top : top + height, left : left + width]
        cv2.resize(crop, (image_size, image_size), dst=crops[view], interpolation=interpolation)
    crops = _turned(crops, int(orientation))
    return crops if num_channels == 3 else to_gray(crops)


def _turned(images: np.ndarray, orientation: int) -> np.ndarray:
    """Images [..., height, width, channel] in stored orientation, turned upright according to EXIF."""
    if orientation >= 5:
        images = images.swapaxes(-3, -2)
    if orientation in (3, 4, 7, 8):
        images = images[..., ::-1, :, :]
    if orientation in (2, 3, 6, 7):
        images = images[..., ::-1, :]
    return images if orientation == 1 else np.ascontiguousarray(images)


def _keep_freed_memory() -> None:
    """Make glibc reuse the memory of one image for the next.

    By default it returns blocks of this size to the system, which zeroes each page again: 40 % of the CPU time of decoding
    and cropping.
    """
    with contextlib.suppress(OSError, AttributeError):  # other systems have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for option, num_bytes in ((_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**30), (_M_TOP_PAD, 2**26)):
            mallopt(option, num_bytes)


def _damage_message(split: EncodedSplit, indices: np.ndarray, error: Exception) -> str:
    """The message for a batch that failed: its images are read again, one by one, to find the damaged ones."""
    problems = [problem for index in indices if (problem := damage_of(split, int(index)))]
    if not problems:
        problems = [f"a batch of {len(indices)} images could not be read ({tensorflow_reason(error)})"]
    more = f" and {len(problems) - 1} more in its batch" if len(problems) > 1 else ""
    return f"{problems[0]}{more}; repair or remove it, or skip damaged images with dataset.skip_damaged=True"


def damage_of(split: EncodedSplit, index: int) -> str | None:
    """The name of this image and why it cannot be read or decoded; None where it can."""
    try:
        decode_upright(read_encoded(split, index), 1, 3)
    except (OSError, ValueError) as error:
        return f"{split.where(index)} cannot be decoded ({one_line(error)})"
    return None


def damage_of_crops(split: EncodedSplit, indices: Int[np.ndarray, "image"], plan: CropPlan) -> dict[int, str]:
    """Index -> why its image cannot be read, or the part of it that is planned decoded; of those where that is so."""
    import tensorflow as tf

    damaged = {}
    for index, kind, rows in zip(indices.tolist(), plan.kinds, plan.rows, strict=True):
        try:
            _decode(tf, read_encoded(split, index), tf.constant(kind), rows)
        except (OSError, tf.errors.OpError) as error:
            damaged[index] = tensorflow_reason(error)
    return damaged


def tensorflow_reason(error: Exception) -> str:
    """TensorFlow's message in one line, without the name of the graph node."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", one_line(getattr(error, "message", error))).strip()[:200]
