"""Boxes of the crops of encoded images, drawn in NumPy, and the scale at which each image is decoded for them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gensupcon_jax.data.splits import Headers

_CROP_ATTEMPTS = 10  # as torchvision
_DRAWS = 2 * _CROP_ATTEMPTS + 2
# They separate the draws for views, and for local views, from those of the epoch's order, which have the same seed.
_CROP_STREAM, _LOCAL_STREAM = 0x63726F70, 0x6C6F6361
_JPEG_SCALES = (2, 4, 8)

Number = float | int


class CropPlan(NamedTuple):
    """How each image of a batch becomes crops; sizes and boxes are in decoded pixels, before the EXIF rotation.

    formats [image]: index in `image_formats.FORMATS`.  scales [image]: 1, or 2, 4, 8 for a JPEG that is decoded at this part
    of its height and width.  sizes [image, 2]: height and width of the decoded image.  boxes [image, view, 4]: top, left,
    height, width.  orientations [image]: EXIF.
    """

    formats: Int[np.ndarray, "image"]
    scales: Int[np.ndarray, "image"]
    sizes: Int[np.ndarray, "image 2"]
    boxes: Int[np.ndarray, "image view 4"]
    orientations: Int[np.ndarray, "image"]


def crop_draws(
    seed: int, step: int, rows: slice, num_views: int, batch_size: int, *, are_local: bool = False
) -> Float[np.ndarray, "image view 22"]:
    """Uniform numbers in 0..1 for the boxes of some rows of a step's global batch: a function of seed, step and row only.

    are_local: for the local views, whose draws are apart from those for the views.
    """
    stream = _LOCAL_STREAM if are_local else _CROP_STREAM
    bits = np.random.Philox(key=[seed + (stream << 32), step]).random_raw(batch_size * num_views * _DRAWS)
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


def plan_crops(
    headers: Headers, boxes: Int[np.ndarray, "image view 4"], crop_sizes: int | Int[np.ndarray, "view"]
) -> CropPlan:
    """At which scale to decode each image so that all its boxes have enough detail, and the boxes at that scale.

    crop_sizes: pixels of the crops, one number for all views or one for each. A JPEG whose boxes are all at least 2, 4 or 8
    times as large as their crops is decoded at that smaller scale, which is faster and antialiased.
    """
    stored_sizes, boxes = _as_stored(headers, boxes.astype(np.int64))
    smallest_sides = boxes[..., 2:].min(2)
    scales = np.ones(len(boxes), np.int64)
    for scale in _JPEG_SCALES:
        scales[headers.plain_jpeg & (smallest_sides >= scale * crop_sizes).all(1)] = scale
    decoded = -(-stored_sizes // scales[:, None])
    corners = boxes[..., :2] // scales[:, None, None]
    ends = np.minimum(-(-(boxes[..., :2] + boxes[..., 2:]) // scales[:, None, None]), decoded[:, None])
    planned = np.concatenate([corners, np.maximum(ends - corners, 1)], -1)
    return CropPlan(
        headers.formats.astype(np.int32),
        scales.astype(np.int32),
        decoded.astype(np.int32),
        planned.astype(np.int32),
        headers.orientations.astype(np.int32),
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
