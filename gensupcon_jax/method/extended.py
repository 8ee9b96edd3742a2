"""How a schedule over the steps of a run goes on in those by which the run became longer."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from gensupcon_jax.extension import Extension

Schedule = Callable[[Any], Any]  # step, from 0 -> value


def extended(schedule: Schedule, extensions: Sequence[Extension], again_fn: Callable[[Any, int], Schedule]) -> Schedule:
    """The schedule, and after the start of each extension what follows; steps before it keep their values.

    "constant": the value of the last step before.  "rewarm": again_fn(that value, number of added steps), from step 0 on.
    """
    for each in extensions:
        schedule = _followed(schedule, each, again_fn)
    return schedule


def _followed(before: Schedule, extension: Extension, again_fn: Callable[[Any, int], Schedule]) -> Schedule:
    def value(step):
        last = before(extension.start - 1)
        added = step - extension.start
        after = last if extension.how == "constant" else again_fn(last, extension.end - extension.start)(added)
        return jnp.where(step < extension.start, before(step), after)

    return value
