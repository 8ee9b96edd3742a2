"""Images without a label in the loss: each is a class of its own, numbered by its place in a block of consecutive images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from gensupcon_jax.collectives import first_number
from gensupcon_jax.errors import UserError

Array = jax.Array | np.ndarray


class Instances(NamedTuple):
    """The part of the label rows of anchors and contrasts that stands for images without a label.

    anchors [anchor, place], contrasts [contrast, place] (None: the anchors): the share of each image of the row's block, that has
    no label, in the row; a view of such an image has 1 at the place of the image, a mix has the shares of its images.
    num_images: of this device, a multiple of the places; the rows of either side are in the order of the images, as many for each
    image.  num_in_blocks: contrasts of these images; those behind them, of a queue, are similar to labels alone.

    >>> two_views = unlabeled_places(jnp.array([[0.0, 1.0], [0.0, 0.0]]), 1).repeat(2, axis=0)
    >>> Instances(two_views, None, num_images=2, num_in_blocks=4).anchors.tolist()
    [[0.0], [0.0], [1.0], [1.0]]
    """

    anchors: Float[Array, "anchor place"]
    contrasts: Float[Array, "contrast place"] | None
    num_images: int
    num_in_blocks: int

    @property
    def num_blocks(self) -> int:
        """Blocks of consecutive images on this device."""
        return self.num_images // self.anchors.shape[1]

    def in_blocks(self, rows: Any, num_rows: int) -> Any:
        """Arrays with the first num_rows rows as [block, row, ...]."""
        return jax.tree.map(lambda array: array[:num_rows].reshape(self.num_blocks, -1, *array.shape[1:]), rows)

    def same_block(
        self, num_queries: int, num_contrasts: int, axis_name: str | None
    ) -> Bool[jax.Array, "{num_queries} {num_contrasts}"]:
        """Which of this device's contrasts are of the block of the first anchors of all devices."""
        of_query = jnp.arange(num_queries) // (len(self.anchors) // self.num_blocks)
        numbers = jnp.arange(num_contrasts)
        of_contrast = first_number(self.num_blocks, axis_name) + numbers // (self.num_in_blocks // self.num_blocks)
        return of_query[:, None] == jnp.where(numbers < self.num_in_blocks, of_contrast, -1)


def unlabeled_places(labels: Shaped[Array, "image class"], block: int) -> Float[jax.Array, "image {block}"]:
    """1 at the place of each image without a label in its block of consecutive images; a row of zeros where it has one.

    labels: a row of zeros is no label.  block: divides the number of images.

    >>> unlabeled_places(jnp.array([[1.0], [0.0], [0.0], [1.0]]), 2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """
    places = jax.nn.one_hot(jnp.arange(len(labels)) % block, block)
    return jnp.where(jnp.any(jnp.asarray(labels) != 0, axis=1, keepdims=True), 0.0, places)


def check_instances(instances: Instances | None, num_anchors: int, num_contrasts: int | None) -> None:
    """UserError for parts that do not fit this many anchors and contrasts (None: the anchors)."""
    if instances is None:
        return
    anchors, contrasts, num_images, num_in_blocks = instances
    places = jnp.shape(anchors)[-1]
    num_other = num_anchors if num_contrasts is None else num_contrasts
    expected: dict[str, tuple[Any, int]] = {"instances.anchors": (anchors, num_anchors)}
    if num_contrasts is not None:
        expected["instances.contrasts"] = (contrasts, num_other)
    for name, (array, size) in expected.items():
        if jnp.shape(array) != (size, places):
            found = "None" if array is None else f"of shape {list(jnp.shape(array))}"
            raise UserError(f"{name} is {found}; allowed: [{size}, {places}], a row for each row of labels")
    if num_images < 1 or num_images % max(places, 1) or num_anchors % num_images:
        raise UserError(
            f"instances.num_images is {num_images}; allowed: a multiple of the {places} places of a block that divides the "
            f"{num_anchors} anchors"
        )
    if not 0 < num_in_blocks <= num_other or num_in_blocks % num_images:
        raise UserError(
            f"instances.num_in_blocks is {num_in_blocks}; allowed: a multiple of the {num_images} images up to {num_other}"
        )
