"""The sizes of the views over a run: one, or several in turn (progressive resizing, `augment.sizes`)."""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import HeadedEncoder

SIZE_FIELDS = ("sizes", "size_epochs")  # the fields of `augment` that say them


class SizedSteps(NamedTuple):
    """Height and width of the views in pixels, and the steps that have them, counted from 0."""

    size: int
    steps: range


def view_sizes(config: ConfigDict, image_size: int, per_epoch: int, total_steps: int) -> tuple[SizedSteps, ...]:
    """The sizes of a run in turn; together they have all of its steps.  image_size: of views and evaluations without `sizes`.

    A size that would begin after the run is left out.
    """
    fields = config.augment
    sizes = (image_size,) if fields.sizes is None else tuple(fields.sizes)
    starts = [0, *(min(total_steps, round(epoch * per_epoch)) for epoch in fields.size_epochs)]
    found = [
        SizedSteps(size, range(start, end))
        for size, start, end in zip(sizes, starts, [*starts[1:], total_steps], strict=True)
    ]
    return tuple(each for each in found if len(each.steps)) or tuple(found[:1])


def size_at(sizes: Sequence[SizedSteps], step: int) -> int:
    """The number of the entry that has this step; after the last step, that of the last."""
    return next((number for number, each in enumerate(sizes) if step < each.steps.stop), len(sizes) - 1)


def parts_of(sizes: Sequence[SizedSteps], steps: range) -> list[SizedSteps]:
    """The same sizes for some consecutive steps only, without those that have none of them; the last one has all that follow.

    >>> parts_of([SizedSteps(128, range(0, 4)), SizedSteps(192, range(4, 9))], range(2, 6))
    [SizedSteps(size=128, steps=range(2, 4)), SizedSteps(size=192, steps=range(4, 6))]
    """
    starts = [each.steps.start for each in sizes]
    ends = [*starts[1:], steps.stop]
    found = [
        SizedSteps(each.size, range(max(steps.start, start), min(steps.stop, end)))
        for each, start, end in zip(sizes, starts, ends, strict=True)
    ]
    return [each for each in found if len(each.steps)]


def weighted_steps(sizes: Sequence[SizedSteps], done: int) -> float:
    """The steps after `done` of them, each counted by its pixels relative to the last step that is done."""
    last = sizes[size_at(sizes, max(0, done - 1))].size
    left = parts_of(sizes, range(done, sizes[-1].steps.stop))
    return sum((len(each.steps) * (each.size / last) ** 2 for each in left), 0.0)


def check_view_sizes(config: ConfigDict, model: HeadedEncoder) -> None:
    """UserError for sizes that the network cannot take."""
    patch = getattr(model.backbone, "patch_size", 1)
    wrong = [size for size in config.augment.sizes or () if size % patch]
    if wrong:
        raise UserError(
            f"augment.sizes is {tuple(config.augment.sizes)}, but patches of {patch} pixels do not divide {wrong[0]}; allowed: "
            f"multiples of {patch}, or choose an encoder with other patches"
        )
