"""The input pipeline: the batch of step t, a pure function of seed and step, placed on the devices."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Int64, UInt8

from gensupcon_jax.data import crop_boxes
from gensupcon_jax.data.crop_batches import crop_batches, damage_of_crops
from gensupcon_jax.data.sampling import sampled_order
from gensupcon_jax.data.shapes import Batch, LocalCrops
from gensupcon_jax.data.splits import AnySplit, EncodedSplit
from gensupcon_jax.errors import UserError

_BATCHES_AHEAD = 2  # on the devices, besides the current one


class HostCrops(NamedTuple):
    """The random resized crops of encoded images on the host: their number, and the ranges of area and aspect ratio.

    scale None: the center crop for evaluation, once per view.  local: smaller crops besides, with the same range of ratios.
    """

    num_views: int
    scale: tuple[float | int, float | int] | None
    ratio: tuple[float | int, float | int]
    local: LocalCrops | None = None


class Order(NamedTuple):
    """The order of the training images: what becomes of an incomplete last batch, and how often each class is drawn."""

    remainder: str = "drop"
    sampling: str = "uniform"


def steps_per_epoch(num_examples: int, batch_size: int, remainder: str = "drop") -> int:
    """Batches per epoch; UserError when there are none.

    remainder: "drop": images that do not fill a batch are left out, different ones in every epoch; or "carry": they begin
    the first batch of the next epoch, and the length of an epoch is rounded to whole steps.
    """
    if not 1 <= batch_size <= num_examples:
        raise UserError(f"batch_size is {batch_size}; allowed: 1 to {num_examples}, the number of training images")
    return num_examples // batch_size if remainder == "drop" else round(num_examples / batch_size)


def epoch_order(seed: int, epoch: int, num_examples: int) -> Int64[np.ndarray, "example"]:
    """A permutation for each (seed, epoch), the same on every host.

    Raw Philox streams are stable across NumPy versions; `Generator.permutation` may not be.
    """
    random_bits = np.random.Philox(key=[seed, epoch]).random_raw(num_examples)
    return np.argsort(random_bits, kind="stable")


_EVERY_IMAGE_ONCE = Order()


class EpochOrders:
    """The images of the global batch of any step; the orders of the two most recent epochs are cached.

    classes: of all images; not needed if every image is drawn once per epoch (`order.sampling` "uniform").
    """

    def __init__(
        self,
        *,
        seed: int,
        num_examples: int,
        batch_size: int,
        order: Order = _EVERY_IMAGE_ONCE,
        classes: Int[np.ndarray, "example"] | None = None,
    ):
        if order.sampling != "uniform" and classes is None:
            raise TypeError(f"sampling is {order.sampling!r}, which needs the classes of all images, not None")
        self._seed, self._num_examples, self._batch_size = seed, num_examples, batch_size
        self._remainder, self._sampling, self._classes = order.remainder, order.sampling, classes
        self._per_epoch = steps_per_epoch(num_examples, batch_size)
        self._orders: dict[int, np.ndarray] = {}

    def indices(self, step: int) -> Int64[np.ndarray, "batch"]:
        """The images of this step, a function of seed and step."""
        if self._remainder == "drop":
            epoch, place = divmod(step, self._per_epoch)
            return self._order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        first = step * self._batch_size
        numbers = np.arange(first, first + self._batch_size)
        epochs = numbers // self._num_examples
        parts = [
            self._order(epoch)[numbers[epochs == epoch] % self._num_examples] for epoch in np.unique(epochs).tolist()
        ]
        return np.concatenate(parts)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            kept = {number: order for number, order in self._orders.items() if number == epoch - 1}
            self._orders = kept | {epoch: self._new_order(epoch)}
        return self._orders[epoch]

    def _new_order(self, epoch: int) -> np.ndarray:
        if self._sampling == "uniform" or self._classes is None:
            return epoch_order(self._seed, epoch, self._num_examples)
        return sampled_order(self._seed, epoch, self._classes, self._sampling)


def train_batches(
    split: AnySplit,
    *,
    seed: int,
    batch_size: int,
    steps: range,
    sharding: jax.sharding.Sharding,
    order: Order = _EVERY_IMAGE_ONCE,
    crops: HostCrops | None = None,
) -> Iterator[Batch]:
    """The batches of these steps; each host reads only its share.

    crops: of encoded images; images in memory are cropped on the device. Batches are a function of (seed, step) only: they
    depend neither on the first step nor on the number of hosts and devices.
    """
    orders = orders_of(split, seed, batch_size, order)
    share = local_rows(batch_size, sharding)
    if isinstance(split, EncodedSplit):
        if crops is None:
            raise TypeError("encoded images are cropped on the host; allowed: crops, not None")

        def planned() -> Iterator[tuple[np.ndarray, crop_boxes.CropPlan]]:
            for step in steps:
                indices = orders.indices(step)[share]
                yield indices, plan_batch(split, indices, crops, (seed, step, share, batch_size))

        local = crop_batches(split, planned(), crops.local)
    else:
        local = ((indices, split.images[indices]) for indices in (orders.indices(step)[share] for step in steps))
    for indices, images, *local_images in local:
        arrays = (images, split.labels_of(indices), *local_images)
        yield Batch(*(_place(array, sharding, batch_size) for array in arrays))


def orders_of(split: AnySplit, seed: int, batch_size: int, order: Order = _EVERY_IMAGE_ONCE) -> EpochOrders:
    """Which images of the split each step has."""
    classes = None if order.sampling == "uniform" else split.classes
    return EpochOrders(seed=seed, num_examples=split.num_images, batch_size=batch_size, order=order, classes=classes)


def plan_batch(split: EncodedSplit, indices: np.ndarray, crops: HostCrops, place: tuple) -> crop_boxes.CropPlan:
    """The boxes of these images and what to decode for them; place: (seed, step, rows, batch size) for random boxes."""
    headers = split.headers.subset(indices)
    if crops.scale is None:
        boxes = np.repeat(crop_boxes.center_boxes(headers.sizes, split.center_share), crops.num_views, axis=1)
        return crop_boxes.plan_crops(headers, boxes, split.image_size)
    seed, step, share, batch_size = place
    draws = crop_boxes.crop_draws(seed, step, share, crops.num_views, batch_size)
    boxes = crop_boxes.random_boxes(draws, headers.sizes, scale=crops.scale, ratio=crops.ratio)
    if crops.local is None:
        return crop_boxes.plan_crops(headers, boxes, split.image_size)
    num_local, size, scale = crops.local
    draws = crop_boxes.crop_draws(seed, step, share, num_local, batch_size, are_local=True)
    local_boxes = crop_boxes.random_boxes(draws, headers.sizes, scale=scale, ratio=crops.ratio)
    sizes = np.repeat([split.image_size, size], [crops.num_views, num_local])
    return crop_boxes.plan_crops(headers, np.concatenate([boxes, local_boxes], 1), sizes)


def padded_batches(
    split: AnySplit, batch_size: int, sharding: jax.sharding.Sharding
) -> Iterator[tuple[UInt8[Array, "batch height width channel"], Bool[np.ndarray, "batch"]]]:
    """Every image once, in order, in batches of one size: (batch, which of its rows are real).

    Encoded images are center-cropped. The last batch repeats its first image to keep one compiled shape; the caller
    drops those rows. With several hosts, each reads only its share of every batch.
    """
    share = local_rows(batch_size, sharding)
    starts = range(0, split.num_images, batch_size)

    def rows(start: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(start, start + batch_size)
        is_real = numbers < split.num_images
        return np.where(is_real, numbers, start), is_real

    local_indices = (rows(start)[0][share] for start in starts)
    if isinstance(split, EncodedSplit):
        center = HostCrops(1, None, (1, 1))
        planned = ((indices, plan_batch(split, indices, center, ())) for indices in local_indices)
        images = (crops[:, 0] for _, crops in crop_batches(split, planned))
    else:
        images = (split.images[indices] for indices in local_indices)
    for start, local in zip(starts, images, strict=True):
        yield _place(local, sharding, batch_size), rows(start)[1]


def centered_images(split: AnySplit, indices: Int[np.ndarray, "some"]) -> UInt8[np.ndarray, "some size size channel"]:
    """These images as the evaluation sees them, for the report."""
    if not isinstance(split, EncodedSplit):
        return split.images[indices]
    plan = plan_batch(split, indices, HostCrops(1, None, (1, 1)), ())
    ((_, crops),) = crop_batches(split, [(indices, plan)])
    return crops[:, 0]


def damaged_images(split: EncodedSplit, indices: Int[np.ndarray, "some"]) -> dict[int, str]:
    """Index -> why the center crop of its image cannot be decoded, of those where that is so; each is decoded on its own."""
    return damage_of_crops(split, indices, plan_batch(split, indices, HostCrops(1, None, (1, 1)), ()))


def local_rows(batch_size: int, sharding: jax.sharding.Sharding) -> slice:
    """The rows of a global batch that are on this process's devices."""
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    ranges = [index[0].indices(batch_size)[:2] if index else (0, batch_size) for index in indices]
    return slice(min(start for start, _ in ranges), max(stop for _, stop in ranges))


def _place(local: np.ndarray, sharding: jax.sharding.Sharding, batch_size: int) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, local, (batch_size, *local.shape[1:]))


class Prefetched:
    """Batches made in a thread, a few ahead of the loop; `waited_seconds`: time that the loop has waited for them.

    An error in the thread is raised in place of its batch. Leaving the `with` block stops the thread.
    """

    def __init__(self, batches: Iterator[Any], ahead: int = _BATCHES_AHEAD):
        self.waited_seconds = 0.0
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(batches,), daemon=True, name="input")
        self._thread.start()

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Any]:
        while True:
            started = time.monotonic()
            kind, value = self._queue.get()
            self.waited_seconds += time.monotonic() - started
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def _fill(self, batches: Any) -> None:
        try:
            for batch in batches:
                if not self._put(("batch", batch)):
                    return
            self._put(("end", None))
        except BaseException as error:  # of any kind: the loop handles it, not this thread
            self._put(("error", error))
        finally:
            with contextlib.suppress(AttributeError):
                batches.close()  # in the thread that ran it: the threads that decode end with it

    def _put(self, item: tuple[str, Any]) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
