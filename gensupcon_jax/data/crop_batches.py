"""Crops of encoded images: each image is read, decoded once and cut in a thread, a few batches ahead."""

import collections
import concurrent.futures
import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from gensupcon_jax.data.channels import to_gray
from gensupcon_jax.data.crop_boxes import CropPlan, center_boxes
from gensupcon_jax.data.decoding import decode_color, read_image_file, turned
from gensupcon_jax.data.headers import read_header
from gensupcon_jax.data.image_formats import FORMATS, image_format_of
from gensupcon_jax.data.shapes import LocalCrops
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import failures
from gensupcon_jax.text import reason

_BATCHES_AHEAD = 2
_MOST_AT_ONCE = 8  # images that a thread takes at a time
_PARTS_PER_THREAD = 4  # of a batch, so that no thread waits for the last one
_MOST_SHRINKING = 2.0  # bilinear interpolation reads 2 x 2 pixels: larger factors use area averaging, which is slower

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # constants of malloc.h

Number = float | int


class ImageChangedError(ValueError):
    """An image has another format or size than its header had."""


class _Underway(NamedTuple):
    """A batch whose parts are being decoded; each part returns the problems of its images.

    crops: uint8 [image, view, size, size, channel], and a second one of the local views, where there are any.
    """

    indices: Int[np.ndarray, "image"]
    crops: list[np.ndarray]
    parts: list[concurrent.futures.Future]


def crop_batches(
    split: EncodedSplit,
    batches: Iterable[tuple[Int[np.ndarray, "image"], CropPlan]],
    local: LocalCrops | None = None,
) -> Iterator[tuple[np.ndarray, ...]]:
    """(indices, crops) for each (indices, plan), in order, decoded in parallel a few batches ahead.

    crops: uint8 [image, view, size, size, channel].  local: the last boxes of each plan, whose smaller crops are a third array.
    Raises UserError that names the images that cannot be read or decoded.
    """
    _keep_freed_memory()
    threads = split.num_threads or os.cpu_count() or 1
    underway: collections.deque[_Underway] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for indices, plan in batches:
            crops = _empty_crops(split, plan, local)
            underway.append(_Underway(indices, crops, _started(pool, threads, split, (indices, plan), crops)))
            if len(underway) > _BATCHES_AHEAD:
                yield _finished(split, underway.popleft())
        while underway:
            yield _finished(split, underway.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _started(
    pool: concurrent.futures.Executor,
    threads: int,
    split: EncodedSplit,
    batch: tuple[np.ndarray, CropPlan],
    crops: list[np.ndarray],
) -> list[concurrent.futures.Future]:
    indices, plan = batch
    at_once = min(max(len(indices) // (threads * _PARTS_PER_THREAD), 1), _MOST_AT_ONCE)
    parts = [slice(start, start + at_once) for start in range(0, len(indices), at_once)]
    return [
        pool.submit(_cut_part, split, indices[part], _part(plan, part), [group[part] for group in crops])
        for part in parts
    ]


def _part(plan: CropPlan, rows: slice) -> CropPlan:
    return CropPlan(*(field[rows] for field in plan))


def _empty_crops(split: EncodedSplit, plan: CropPlan, local: LocalCrops | None = None) -> list[np.ndarray]:
    num_images, num_boxes = plan.boxes.shape[:2]
    num_local = local.num_views if local else 0
    groups = [(num_boxes - num_local, split.image_size), *([(num_local, local.size)] if local else [])]
    return [np.empty((num_images, num, size, size, split.num_channels), np.uint8) for num, size in groups]


def _finished(split: EncodedSplit, batch: _Underway) -> tuple[np.ndarray, ...]:
    problems: dict[int, Exception] = {}
    for part in batch.parts:
        problems |= part.result()
    if problems:
        raise UserError(_damage_message(split, problems))
    return batch.indices, *batch.crops


def _damage_message(split: EncodedSplit, problems: dict[int, Exception]) -> str:
    index, problem = next(iter(problems.items()))
    more = f" and {len(problems) - 1} more in its batch" if len(problems) > 1 else ""
    was_intact = isinstance(problem, ImageChangedError | FileNotFoundError)
    advice = (
        "restore it, or start a new run"
        if was_intact
        else "repair or remove it, or skip damaged images with dataset.skip_damaged=True"
    )
    return f"{split.where(index)} cannot be decoded ({reason(problem)}){more}; {advice}"


def _cut_part(
    split: EncodedSplit, indices: np.ndarray, plan: CropPlan, crops: list[np.ndarray]
) -> dict[int, Exception]:
    """Fill the crops of some images; index -> why an image cannot be read or decoded, of those where that is so."""
    problems = {}
    scratch = np.empty(int(plan.sizes.astype(np.int64).prod(1).max()) * 3, np.uint8)
    sizes, boxes = plan.sizes.tolist(), plan.boxes.tolist()
    for row, source in enumerate(_sources(split, indices)):
        try:
            if isinstance(source, Exception):
                raise source
            encoded = read_image_file(source) if split.are_paths else source
            if image_format_of(encoded) != FORMATS[plan.formats[row]]:
                raise _change(split, int(indices[row]), encoded)
            pixels = decode_color(encoded, int(plan.scales[row]), scratch)
            if list(pixels.shape[:2]) != sizes[row]:
                raise _change(split, int(indices[row]), encoded)
        except (*failures(), ValueError, RuntimeError) as error:
            refuse_lost(error, split.where(int(indices[row])))
            problems[int(indices[row])] = error
            continue
        first = 0
        for group in crops:
            _cut(pixels, boxes[row][first : first + group.shape[1]], int(plan.orientations[row]), group[row])
            first += group.shape[1]
    return problems


def _change(split: EncodedSplit, index: int, encoded: bytes) -> ValueError:
    """How an image differs from the header that was read first, as an error."""
    now, known = read_header(encoded), split.headers.subset(np.array([index]))
    if now.problem is not None:
        return ValueError(now.problem)
    height, width = known.sizes[0]
    return ImageChangedError(
        f"it was a {FORMATS[known.formats[0]]} of {width} x {height} pixels when its header was read, and is now a "
        f"{now.format} of {now.width} x {now.height}"
    )


def _sources(split: EncodedSplit, indices: np.ndarray) -> list:
    """The sources of these images; an error in place of a record that cannot be read."""
    try:
        return list(split.sources(indices))
    except (*failures(), ValueError, RuntimeError) as error:
        if len(indices) == 1:
            return [error]
    return [source for index in indices for source in _sources(split, np.array([index]))]


def damage_of_crops(split: EncodedSplit, indices: Int[np.ndarray, "image"], plan: CropPlan) -> dict[int, str]:
    """Index -> why its image cannot be read or decoded, of those where that is so."""
    problems = _cut_part(split, indices, plan, _empty_crops(split, plan))
    return {index: reason(problem) for index, problem in problems.items()}


def center_crop(
    pixels: UInt8[np.ndarray, "height width 3"], share: Number, image_size: int, num_channels: int
) -> UInt8[np.ndarray, "size size channel"]:
    """The center crop of a decoded, upright image, resized as the crops of encoded images are."""
    boxes = center_boxes(np.array([pixels.shape[:2]]), share)[0]
    crops = np.empty((1, image_size, image_size, num_channels), np.uint8)
    _cut(pixels, boxes.tolist(), 1, crops)
    return crops[0]


def _cut(pixels: np.ndarray, boxes: list, orientation: int, crops: np.ndarray) -> None:
    """Fill crops [view, size, size, channel] with these boxes of a decoded image in color, resized and upright."""
    import cv2  # with TensorFlow's resize, two crops take as long as decoding

    image_size = crops.shape[1]
    is_direct = orientation == 1 and crops.shape[3] == 3
    resized = crops if is_direct else np.empty((*crops.shape[:3], 3), np.uint8)
    for view, (top, left, height, width) in enumerate(boxes):
        shrinks_much = max(height, width) > _MOST_SHRINKING * image_size
        interpolation = cv2.INTER_AREA if shrinks_much else cv2.INTER_LINEAR
        box = pixels[top : top + height, left : left + width]
        cv2.resize(box, (image_size, image_size), dst=resized[view], interpolation=interpolation)
    if not is_direct:
        resized = turned(resized, orientation)
        crops[:] = resized if crops.shape[3] == 3 else to_gray(resized)


def _keep_freed_memory() -> None:
    """Make glibc reuse the memory of one image for the next.

    By default it returns blocks of this size to the system, which zeroes each page again: 40 % of the CPU time of decoding
    and cropping.
    """
    with contextlib.suppress(OSError, AttributeError):  # other systems have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for option, num_bytes in ((_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**30), (_M_TOP_PAD, 2**26)):
            mallopt(option, num_bytes)
