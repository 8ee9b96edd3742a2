"""The loss of a classifier: cross-entropy of one class per image, or binary cross-entropy of each of several labels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gensupcon_jax.collectives import sum_over

Loss = tuple[Float[Array, ""], Float[Array, ""]]


def classifier_loss_fn(label_kind: str) -> Callable[..., Loss]:
    """(logits, labels, label_smoothing, axis_name, given) -> loss and accuracy, for this `dataset.label_kind`.

    given: the labels without a teacher's predictions, where some images have none; None: all have a label.
    """
    return binary_cross_entropy if label_kind == "several" else softmax_cross_entropy


def softmax_cross_entropy(
    logits: Float[Array, "image class"],
    labels: Float[Array, "image class"],
    label_smoothing: float | int,
    axis_name: str | None,
    given: Float[Array, "image class"] | None = None,
) -> Loss:
    """Mean cross-entropy and the share of images whose most likely class is the label's, over all devices.

    given: where some images have no label, those count as far as they have one.
    """
    with jax.named_scope("loss"):
        smoothed = optax.smooth_labels(labels, label_smoothing)
        if given is not None:
            known = labels.sum(axis=1)
            smoothed -= (label_smoothing / labels.shape[1]) * (1.0 - known[:, None])
            total, count = sum_over(
                jnp.stack([optax.softmax_cross_entropy(logits, smoothed).sum(), known.sum()]), axis_name
            )
            return total / jnp.maximum(count, 1.0), accuracy_of_labeled(logits, given, axis_name)
        value = optax.softmax_cross_entropy(logits, smoothed).mean()
        return _over_devices(value, jnp.mean(logits.argmax(1) == labels.argmax(1)), axis_name)


def binary_cross_entropy(
    logits: Float[Array, "image label"],
    labels: Float[Array, "image label"],
    label_smoothing: float | int,
    axis_name: str | None,
    given: Float[Array, "image label"] | None = None,
) -> Loss:
    """Mean over images of the sum over labels of the binary cross-entropy, and the share of right decisions (p > 1/2).

    labels: each entry from 0 to 1 by itself, as of mixed images.  The sum, not the mean, over labels: the gradient of a logit is
    then p - y, as that of the softmax, and the same learning rates suit.  label_smoothing s: y becomes (1 - s) y + s / 2.
    given: in place of the labels, as an image with none of the labels is a negative of each, whatever a teacher predicts.
    """
    with jax.named_scope("loss"):
        labels = labels if given is None else given
        smoothed = (1.0 - label_smoothing) * labels + label_smoothing / 2.0
        value = optax.sigmoid_binary_cross_entropy(logits, smoothed).sum(axis=1).mean()
        return _over_devices(value, jnp.mean((logits > 0.0) == (labels > 0.5)), axis_name)


def accuracy_of_labeled(
    logits: Float[Array, "image class"], labels: Float[Array, "image class"], axis_name: str | None
) -> Float[Array, ""]:
    """The share of images with a label whose most likely class is the label's, over all devices; 0 if there are none."""
    known = jnp.any(labels > 0.0, axis=1)
    correct = known & (logits.argmax(1) == labels.argmax(1))
    hits, count = sum_over(jnp.stack([correct.sum(dtype=jnp.float32), known.sum(dtype=jnp.float32)]), axis_name)
    return hits / jnp.maximum(count, 1.0)


def _over_devices(value: Float[Array, ""], accuracy: Float[Array, ""], axis_name: str | None) -> Loss:
    return (value, accuracy) if axis_name is None else jax.lax.pmean((value, accuracy), axis_name)
