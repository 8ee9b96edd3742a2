"""Prototypes: learned centers of the classes, further contrasts of every anchor, which also classify (PaCo, GPaCo)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gensupcon_jax.losses import ClassCenters

_SMALLEST_SHARE = 1e-9  # of a class without training images, as in PaCo's code


class Prototypes(NamedTuple):
    """The part of class centers in the loss (PaCo, arXiv 2107.12028; GPaCo, arXiv 2209.12400).

    The logit of a center is that of a linear classifier on the features, trained by this loss alone.  alpha: weight of the
    attraction to images.  beta: weight of the attraction to centers.  label_smoothing: a center is of all classes by this
    share.  class_shares [class]: of the training images; their log is added to the logits in training, so that a rare
    class needs a larger one (logit adjustment); None: nothing is added.
    """

    alpha: float | int = 1.0
    beta: float | int = 1.0
    label_smoothing: float | int = 0.0
    class_shares: np.ndarray | None = None

    def centers(
        self,
        logits: Float[Array, "anchor class"],
        labels: Float[Array, "anchor class"],
        weights: Float[Array, " class"] | None = None,
    ) -> ClassCenters:
        """The centers as the loss takes them, from the classifier's logits of the anchors and the anchors' labels.

        The attraction to a center is beta x the inner product of both labels, so that of a distribution is beta in all.
        """
        if self.class_shares is not None:
            logits = logits + jnp.log(jnp.maximum(jnp.asarray(self.class_shares, jnp.float32), _SMALLEST_SHARE))
        spread = self.label_smoothing / logits.shape[1]
        shares = (1.0 - self.label_smoothing) * labels + spread * labels.sum(axis=1, keepdims=True)
        return ClassCenters(logits, self.beta * shares, self.alpha, weights)
