"""SGD and its learning rate as functions of the step."""

import optax

Number = float | int


def warmup_cosine(*, peak: Number, start: Number, final: Number, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """The rate at each step: a line from start to peak, then half a cosine down to final (authors' code, per step)."""
    return optax.warmup_cosine_decay_schedule(
        init_value=start if warmup_steps else peak,
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(total_steps, warmup_steps + 1),
        end_value=final,
    )


def sgd(schedule: optax.Schedule, *, momentum: Number, weight_decay: Number) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay on every parameter, as torch.optim.SGD (authors' code)."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum))
