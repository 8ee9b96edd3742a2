"""Steps whose loss or gradient is far above that of the steps before: what tells them, inside the compiled step."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

WATCHED = ("loss", "gradient_norm")
_LEAST_DEVIATION = 0.01  # share of the mean: where all values are nearly equal, rounding is no spike


class SpikeRule(NamedTuple):
    """A step is a spike where its loss or the norm of its gradient is more than `deviations` standard deviations above the mean
    of the last `window` accepted steps; before there are so many, none is."""

    deviations: float | int
    window: int

    def empty(self) -> dict[str, Any]:
        """The window before the first step, and the counts: accepted steps, and spikes."""
        values = {name: jnp.zeros(self.window) for name in WATCHED}
        return values | {"num_accepted": jnp.zeros((), jnp.int32), "num_spikes": jnp.zeros((), jnp.int32)}

    def is_spike(self, window: dict[str, Any], metrics: dict[str, Any]) -> Bool[Array, ""]:
        """Whether the step with these metrics is one; a value that is not finite is none."""
        is_full = window["num_accepted"] >= self.window
        heights = jnp.stack([height(jnp.asarray(window[name]), jnp.asarray(metrics[name])) for name in WATCHED])
        return is_full & jnp.any(heights > self.deviations)

    def accepted(self, window: dict[str, Array], metrics: dict[str, Array]) -> dict[str, Array]:
        """The window after a step that was accepted: its values take the place of the oldest."""
        place = window["num_accepted"] % self.window
        values = {name: window[name].at[place].set(metrics[name]) for name in WATCHED}
        return window | values | {"num_accepted": window["num_accepted"] + 1}


def height(values: Float[Array, " step"], value: Float[Array, ""]) -> Float[Array, ""]:
    """How many standard deviations a value is above the mean of others; 0 where it is not finite, or these are all 0."""
    mean = values.mean()
    deviation = jnp.maximum(values.std(), _LEAST_DEVIATION * jnp.abs(mean))
    # Without a deviation all values are 0, which tells nothing about the next one.
    return jnp.where(
        jnp.isfinite(value) & (deviation > 0), (value - mean) / jnp.where(deviation > 0, deviation, 1.0), 0.0
    )


def heights_in_words(window: dict[str, Any], metrics: dict[str, float]) -> str:
    """How far the loss and the norm of the gradient are above the accepted steps."""
    parts = []
    for name, word in zip(WATCHED, ("loss", "gradient norm"), strict=True):
        values = jnp.asarray(window[name])
        above = float(height(values, jnp.asarray(metrics[name])))
        parts.append(f"{word} {metrics[name]:.4g} is {above:.1f} deviations above the mean {float(values.mean()):.4g}")
    return f"{' and '.join(parts)} of the last {len(window[WATCHED[0]])} accepted steps"
