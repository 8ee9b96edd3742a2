"""A moving average of the trained network, which evaluations use in its place (`evaluate.encoder` ema)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gensupcon_jax.method.objectives import Momentum, Objective
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.store.averaged import AVERAGED_FIELDS, averaged_fields


class Average(NamedTuple):
    """The moving average of parameters and running statistics, for objectives without a momentum encoder.

    After step t (from 0) its share of the old average is the smaller of the decay at t and (1 + t) / (10 + t), so that the
    initial parameters are soon forgotten (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """

    decay: Momentum

    def updated(self, state: TrainState, candidate: TrainState) -> dict[str, Any]:
        """The fields of the average after a step from `state` to `candidate`."""
        share = jnp.minimum(self.decay.at(state.step), (1 + state.step) / (10 + state.step))

        def average(old: Any, new: Any) -> Any:
            return jax.tree.map(lambda one, other: share * one + (1 - share) * other, old, new)

        with jax.named_scope("ema"):
            return {
                "ema_params": average(state.ema_params, candidate.params),
                "ema_batch_stats": average(state.ema_batch_stats, candidate.batch_stats),
            }


def averaged_state(state: TrainState) -> TrainState:
    """The state whose network is the moving average."""
    return state.replace(**averaged_fields({name: getattr(state, name) for name in AVERAGED_FIELDS}))


def with_average(objective: Objective, *, is_kept: bool) -> Objective:
    """The objective whose predictions are those of the average.

    is_kept: the objective keeps an average itself, its momentum encoder; otherwise one of the whole network is added to the
    state, which `Average` updates.
    """

    def init(rng: jax.Array, images: Any) -> dict[str, Any]:
        fields = objective.init(rng, images)
        if is_kept:
            return fields
        return fields | {"ema_params": fields["params"], "ema_batch_stats": fields.get("batch_stats", {})}

    def predict(state: TrainState, frozen: Any, images: Any) -> Any:
        return objective.predict(averaged_state(state), frozen, images)

    return Objective(init, objective.loss, predict)
