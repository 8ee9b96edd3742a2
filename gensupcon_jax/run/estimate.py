"""How long a run takes, estimated once from the time of its first steps: training, evaluations, and the report."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gensupcon_jax.report.values import duration
from gensupcon_jax.run.assemble import Lengths

_TIMED_STEPS = 9  # after the first ones, which include the compilation
_SHORTEST = 20.0  # seconds; shorter runs need no estimate
# Measured on the recipes digits and photos on 2 cores: an evaluated image costs about half of a training view, which has a
# gradient besides; each kind of program is compiled once more; fitting probe and k-NN, and the report, take the rest.
_EVALUATED_IMAGE = 0.5
_COMPILED_AGAIN = 1.0
_REPORT_SECONDS = 12.0


class Amounts(NamedTuple):
    """What is left to do.

    steps: of training.  weighted_steps: the same, each by its pixels relative to those that were timed; None: all alike.
    batch_views: images x views of a step.  validations: evaluations during training.  validation_images, final_images: images
    evaluated by each of them, and at the end.
    """

    steps: int
    batch_views: int
    validations: int
    validation_images: int
    final_images: int
    weighted_steps: float | None = None


class Estimator:
    """Collects the times of the first logged steps of a start, until they tell how long the run will take.

    amounts_fn: step -> what is left after it.  Example: `estimator.sentence(step, seconds)` for each logged step, seconds: since
    the one before.
    """

    def __init__(self, amounts_fn: Callable[[int], Amounts], start_step: int):
        self._amounts_fn, self._step = amounts_fn, start_step
        self._first: tuple[int, float] | None = None
        self._timed_steps, self._timed_seconds, self._is_done = 0, 0.0, False

    def sentence(self, step: int, seconds: float) -> str | None:
        """The estimate, once; None before it is known, afterwards, and for a run that takes seconds."""
        steps, self._step = step - self._step, step
        if self._is_done:
            return None
        if self._first is None:
            self._first = steps, seconds
            return None
        self._timed_steps += steps
        self._timed_seconds += seconds
        if self._timed_steps < _TIMED_STEPS:
            return None
        self._is_done = True
        step_seconds = self._timed_seconds / self._timed_steps
        compiled_seconds = max(0.0, self._first[1] - self._first[0] * step_seconds)
        return estimate(self._amounts_fn(step), step_seconds, compiled_seconds)


def amounts_left(lengths: Lengths, num_images: Mapping[str, int], batch_views: int, step: int) -> Amounts:
    """What is left to do after this step; the best step is evaluated at the end as well as the last.

    num_images: evaluated of train, validation and test.
    """
    total, every = lengths.total_steps, lengths.evaluate_steps
    of_each = num_images["train"] + num_images["validation"]
    if num_images["validation"] == 0:  # nothing is evaluated while training, and only the last step at the end
        return Amounts(total - step, batch_views, 0, 0, of_each + 2 * num_images["test"])
    return Amounts(
        steps=total - step,
        batch_views=batch_views,
        validations=max(1, total // every - step // every) if every else 1,
        validation_images=of_each,
        final_images=2 * (of_each + num_images["test"]) + num_images["test"],
    )


def seconds_left(amounts: Amounts, step_seconds: float, compiled_seconds: float) -> tuple[float, float]:
    """(training, evaluation) in seconds; compiled_seconds: the compilation of the step."""
    image_seconds = _EVALUATED_IMAGE * step_seconds / amounts.batch_views
    images = amounts.validations * amounts.validation_images + amounts.final_images
    evaluation = images * image_seconds + _COMPILED_AGAIN * compiled_seconds + _REPORT_SECONDS
    steps = amounts.steps if amounts.weighted_steps is None else amounts.weighted_steps
    return steps * step_seconds, evaluation


def estimate(amounts: Amounts, step_seconds: float, compiled_seconds: float) -> str | None:
    """The estimate in words; None for a run that takes seconds."""
    training, evaluation = seconds_left(amounts, step_seconds, compiled_seconds)
    if training + evaluation < _SHORTEST:
        return None
    return (
        f"about {duration(training + evaluation)} left: {duration(training)} of training ({amounts.steps} steps), "
        f"{duration(evaluation)} of evaluation and report"
    )
