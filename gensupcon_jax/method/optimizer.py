"""Learning rate schedules, and OPTIMIZERS, the table of optimizers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.errors import UserError

Number = float | int

SCHEDULES = names_of("optimizer.schedule")
SCHEDULE_PER = names_of("optimizer.schedule_per")
WEIGHT_DECAY_MODES = names_of("optimizer.weight_decay_mode")

_EPSILON = 1e-8  # as in torch, for rmsprop and adam; outside the square root


def build_schedule(
    *,
    schedule: str,
    schedule_per: str,
    learning_rate: Number,
    warmup_learning_rate: Number | Float[Array, ""],
    final_learning_rate: Number,
    warmup_steps: int,
    total_steps: int,
    steps_per_epoch: int,
    decay_epochs: Sequence[Number],
    decay_factor: Number,
) -> optax.Schedule:
    """The rate at step 0, 1, ...: a linear warm-up from warmup_learning_rate, then `schedule` (authors' code).

    cosine per step: up to learning_rate, then half a cosine over the remaining steps, down to final_learning_rate, a share of
    learning_rate. cosine per epoch: one value per epoch from a cosine over the whole run; the warm-up ends at its value there.
    step: x decay_factor after each of decay_epochs; per epoch, the warm-up ends at the value of that cosine here too. constant
    is the same per step and per epoch. UserError for unknown names.
    """
    _check_choice("schedule", schedule, SCHEDULES)
    _check_choice("schedule_per", schedule_per, SCHEDULE_PER)
    if schedule == "cosine" and schedule_per == "step":
        final = learning_rate * final_learning_rate
        return _cosine_per_step(learning_rate, warmup_learning_rate, final, warmup_steps, total_steps)

    epochs, warmup_epochs = max(total_steps, 1) / steps_per_epoch, warmup_steps / steps_per_epoch
    cosine = functools.partial(
        _cosine_in_epoch, peak=learning_rate, final=learning_rate * final_learning_rate, epochs=epochs
    )
    decays = tuple(decay_epochs) if schedule == "step" else ()
    decayed = functools.partial(_decayed_in_epoch, peak=learning_rate, decay_epochs=decays, factor=decay_factor)
    follows_cosine = schedule == "cosine" or (schedule == "step" and schedule_per == "epoch")
    line = _Line(warmup_learning_rate, cosine(warmup_epochs) if follows_cosine else learning_rate, warmup_steps)
    return _line_then_epochs(line, cosine if schedule == "cosine" else decayed, steps_per_epoch)


class OptimizerFields(NamedTuple):
    """The config's `optimizer` fields for the builders in OPTIMIZERS; each reads what it needs.

    momentum, second_momentum: decay of the moving averages. trust_coefficient: of layer-wise rates. weight_decay
    and weight_decay_mode: see `with_weight_decay`. exclude_bias_and_norm: see `mask_fn`.
    """

    momentum: Number
    nesterov: bool
    second_momentum: Number
    trust_coefficient: Number
    weight_decay: Number
    weight_decay_mode: str
    exclude_bias_and_norm: bool

    @property
    def mask_fn(self) -> Callable[[Any], Any] | None:
        """parameters -> True for each leaf with weight decay and a trust ratio, the weights only; None: all leaves.

        Leaves named bias or scale, with fewer than two axes, class tokens and position embeddings are not weights (timm).
        """
        return _is_weight if self.exclude_bias_and_norm else None


def build_optimizer(schedule: optax.Schedule, *, name: str, **fields: Any) -> optax.GradientTransformation:
    """The optimizer of this name in OPTIMIZERS, with `OptimizerFields`; UserError for unknown names.

    sgd, rmsprop, adam and adamw are as in torch.optim; lars has the rate inside the momentum, as optax and SimCLR.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer.name is {name!r}; allowed: {', '.join(OPTIMIZERS)}")
    settings = OptimizerFields(**fields)
    _check_choice("weight_decay_mode", settings.weight_decay_mode, WEIGHT_DECAY_MODES)
    return OPTIMIZERS[name](schedule, settings)


def with_weight_decay(
    update: optax.GradientTransformation, schedule: optax.Schedule, fields: OptimizerFields, *, mode: str | None = None
) -> optax.GradientTransformation:
    """The update with weight decay, coupled or decoupled; mode None: `weight_decay_mode`.

    coupled: the gradient is first increased by weight_decay * parameter. decoupled: the parameter is also reduced by
    rate * weight_decay * parameter.
    """
    if (mode or fields.weight_decay_mode) == "decoupled":
        decay = optax.add_decayed_weights(
            lambda step: -fields.weight_decay * jnp.asarray(schedule(step)), fields.mask_fn
        )
        return optax.chain(update, decay)
    return optax.chain(optax.add_decayed_weights(fields.weight_decay, fields.mask_fn), update)


def _sgd(schedule: optax.Schedule, fields: OptimizerFields) -> optax.GradientTransformation:
    return with_weight_decay(optax.sgd(schedule, fields.momentum, fields.nesterov), schedule, fields)


def _lars(schedule: optax.Schedule, fields: OptimizerFields) -> optax.GradientTransformation:
    # optax.lars applies its own decay first, so it can equally be applied before it.
    update = optax.lars(
        schedule,
        trust_coefficient=fields.trust_coefficient,
        trust_ratio_mask=fields.mask_fn or True,
        momentum=fields.momentum,
        nesterov=fields.nesterov,
    )
    return with_weight_decay(update, schedule, fields)


def _rmsprop(schedule: optax.Schedule, fields: OptimizerFields) -> optax.GradientTransformation:
    # Not optax.rmsprop: there the rate is inside the momentum, in torch outside.
    update = optax.chain(
        optax.scale_by_rms(fields.second_momentum, _EPSILON, eps_in_sqrt=False),
        optax.trace(fields.momentum),
        optax.scale_by_learning_rate(schedule),
    )
    return with_weight_decay(update, schedule, fields)


def _adam(
    schedule: optax.Schedule, fields: OptimizerFields, *, mode: str | None = None
) -> optax.GradientTransformation:
    update = optax.adam(schedule, fields.momentum, fields.second_momentum, _EPSILON)
    return with_weight_decay(update, schedule, fields, mode=mode)


# name -> builder(schedule, fields) -> the gradient transformation. To add an optimizer, add an entry, also from outside the
# package: OPTIMIZERS["lion"] = lambda schedule, fields: optax.lion(schedule, fields.momentum).
OPTIMIZERS: dict[str, Callable[[optax.Schedule, OptimizerFields], optax.GradientTransformation]] = {
    "sgd": _sgd,
    "lars": _lars,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": functools.partial(_adam, mode="decoupled"),
}


def _cosine_per_step(peak: Number, start: Any, final: Number, warmup_steps: int, total_steps: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(
        init_value=start if warmup_steps else peak,
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(total_steps, warmup_steps + 1),
        end_value=final,
    )


class _Line(NamedTuple):
    """The warm-up: a line from one rate to another over so many steps."""

    start: Any
    end: Any
    num_steps: int


def _line_then_epochs(line: _Line, rate_in_epoch: Callable, steps_per_epoch: int) -> optax.Schedule:
    """The warm-up, then one rate per epoch; epochs are counted from 1."""

    def rate(step):
        on_line = line.start + step / max(line.num_steps, 1) * (line.end - line.start)
        return jnp.where(step < line.num_steps, on_line, rate_in_epoch(step // steps_per_epoch + 1))

    return rate


def _cosine_in_epoch(epoch: Any, *, peak: Number, final: Number, epochs: Number) -> Any:
    """Half a cosine from peak in epoch 0, before the first epoch of the run, to final in the last."""
    return final + (peak - final) * (1 + jnp.cos(jnp.pi * jnp.minimum(epoch / epochs, 1.0))) / 2


def _decayed_in_epoch(epoch: Any, *, peak: Number, decay_epochs: tuple[Number, ...], factor: Number) -> Any:
    """Peak x factor for each decay epoch that is over; peak in epoch 0."""
    return peak * factor ** sum(epoch > decay_epoch for decay_epoch in decay_epochs)


def _is_weight(parameters: Any) -> Any:
    """True for each leaf except biases, norms, class tokens and position embeddings."""

    def is_weight(path, leaf):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim > 1 and name not in ("bias", "scale", "cls_token", "pos_embed")

    return jax.tree_util.tree_map_with_path(is_weight, parameters)


def _check_choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"optimizer.{field} is {value!r}; allowed: {', '.join(allowed)}")
