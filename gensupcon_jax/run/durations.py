"""Durations in steps, from whichever of three units was given."""

import math

from gensupcon_jax.errors import UserError

Number = float | int


def duration_steps(
    *, epochs: Number | None, steps: int | None, images: int | None, steps_per_epoch: int, batch_size: int, name: str
) -> int:
    """The first of steps, images and epochs that is not None, in steps.

    images / batch_size and epochs * steps_per_epoch are rounded to the nearest whole step (a half to the even one), to at
    least 1 unless the duration is 0. name: the common prefix of the fields, "optimizer.warmup" for `optimizer.warmup_steps`;
    "" for `steps`. UserError names the field that is negative or not a number, or all three if none is given.
    """
    given = {"steps": steps, "images": images, "epochs": epochs}
    fields = {unit: f"{name}_{unit}" if name else unit for unit in given}
    for unit, duration in given.items():
        if duration is not None and not 0 <= duration < math.inf:
            raise UserError(f"{fields[unit]} is {duration!r}; allowed: a number from 0, or None")
    if steps is not None:
        return steps
    if images is not None:
        return _at_least_one(images / batch_size)
    if epochs is not None:
        return _at_least_one(epochs * steps_per_epoch)
    raise UserError(f"{', '.join(fields.values())} are all None; allowed: one of them is a number from 0")


def _at_least_one(exact_steps: Number) -> int:
    return max(1, round(exact_steps)) if exact_steps else 0
