"""What is trained: an Objective is three pure functions; the loop and the step are the same for all."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gensupcon_jax import losses
from gensupcon_jax.errors import UserError
from gensupcon_jax.sharding import DATA_AXIS, make_replicated
from gensupcon_jax.state import TrainState

MODES = ("all", "one")


class MixedBatch(NamedTuple):
    """One device's images as the network sees them, and the label distribution of each view."""

    images: Float[Array, "batch view height width channel"]
    labels: Float[Array, "batch view class"]


class Aux(NamedTuple):
    """What a loss hands back beside its value: state fields to replace, and numbers to log."""

    updates: dict[str, Any]
    metrics: dict[str, Float[Array, ""]]


class Prediction(NamedTuple):
    """What a trained network says of images: backbone features, and the unit embeddings behind the head."""

    features: Float[Array, "batch dim"]
    embeddings: Float[Array, "batch embedding"]


class Objective(NamedTuple):
    """init(rng, images) -> variables; loss(params, state, frozen, batch, rng) -> (scalar, Aux); predict(state, frozen,
    images) -> Prediction. `frozen` holds variables that are read and never updated."""

    init: Callable
    loss: Callable
    predict: Callable


def contrastive(
    model: nn.Module,
    *,
    mode: str = "all",
    temperature: float | int,
    base_temperature: float | int | None = None,
    normalizer: str = "similarity",
    tile_size: int | None = None,
    axis_name: str | None = DATA_AXIS,
) -> Objective:
    """GenSCL without momentum: all views are anchors and contrasts (`all`), or view 0 against the others (`one`).

    `loss` runs inside `shard_map`; it is the mean over the valid anchors of all devices (paper, Eq. 2; authors' code).
    Raises UserError for an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"loss.mode is {mode!r}; allowed: {', '.join(MODES)}")
    loss_of_views = functools.partial(
        views_loss,
        mode=mode,
        temperature=temperature,
        base_temperature=base_temperature,
        normalizer=normalizer,
        tile_size=tile_size,
        axis_name=axis_name,
    )

    def init(rng: jax.Array, images: Float[Array, "batch height width channel"]) -> dict:
        return model.init(rng, images, train=False)

    def loss(params, state: TrainState, frozen, batch: MixedBatch, rng) -> tuple[Float[Array, ""], Aux]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        num_images, num_views = batch.images.shape[:2]
        images = batch.images.reshape(num_images * num_views, *batch.images.shape[2:])
        (_, embeddings), changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        anchor_loss = loss_of_views(embeddings.reshape(num_images, num_views, -1), batch.labels)
        value = anchor_loss.mean()
        metrics = {"loss": value, "valid_anchors": anchor_loss.valid.mean()}
        return value, Aux({"batch_stats": make_replicated(changed["batch_stats"])}, metrics)

    def predict(state: TrainState, frozen, images: Float[Array, "batch height width channel"]) -> Prediction:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return Prediction(*model.apply(variables, images, train=False))

    return Objective(init, loss, predict)


def views_loss(
    embeddings: Float[Array, "batch view dim"], labels: Float[Array, "batch view class"], *, mode: str, **settings
) -> losses.AnchorLoss:
    """The loss of each anchor: every view against all others (`all`), or view 0 against the other views (`one`).

    Settings are those of `losses.generalized_contrastive_loss` (authors' code: `contrast_mode`).
    """
    settings = {name: value for name, value in settings.items() if name != "tile_size" or value is not None}
    if mode == "all":
        return losses.generalized_contrastive_loss(_join(embeddings), _join(labels), **settings)
    queries, keys = (embeddings[:, 0], labels[:, 0]), (_join(embeddings[:, 1:]), _join(labels[:, 1:]))
    return losses.generalized_contrastive_loss(*queries, *keys, **settings)


def _join(views: Float[Array, "batch view dim"]) -> Float[Array, "batch*view dim"]:
    return views.reshape(-1, views.shape[-1])


def chance_loss(labels: Float[Array, "batch view class"], *, mode: str, **settings) -> float:
    """The loss of a whole batch whose embeddings are all alike: what a network that knows nothing gets (ours)."""
    embeddings = jnp.zeros((*labels.shape[:2], 1))
    return float(views_loss(embeddings, labels, mode=mode, **settings).mean())
