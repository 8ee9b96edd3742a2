"""One unit counts, it is rounded to whole steps, and errors name their field."""

import math

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.run.durations import duration_steps


def steps_of(*, epochs=None, steps=None, images=None, name=""):
    return duration_steps(epochs=epochs, steps=steps, images=images, steps_per_epoch=48, batch_size=32, name=name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"steps": 7, "images": 3200, "epochs": 2.0}, 7),
        ({"images": 3200, "epochs": 2.0}, 100),
        ({"epochs": 2.0}, 96),
        ({"steps": 0, "images": 3200, "epochs": 2.0}, 0),  # 0 is given, None is not
    ],
)
def test_the_first_given_of_steps_images_epochs_counts(given, expected):
    assert steps_of(**given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"images": 32 * 5 + 15}, 5),
        ({"images": 32 * 5 + 17}, 6),
        ({"images": 32 * 5 + 16}, 6),  # 5.5: a half goes to the even one
        ({"images": 32 * 4 + 16}, 4),  # 4.5
        ({"epochs": 0.51}, 24),  # 24.48
        ({"epochs": 0.52}, 25),  # 24.96
        ({"epochs": 3}, 144),
        ({"images": 1}, 1),  # at least one step
        ({"epochs": 1e-6}, 1),
        ({"images": 0}, 0),
        ({"epochs": 0.0}, 0),
    ],
)
def test_rounding(given, expected):
    result = steps_of(**given)
    assert (result, type(result)) == (expected, int)


def test_many_images_lose_no_step():
    assert steps_of(images=32 * 10**12) == 10**12
    assert duration_steps(epochs=None, steps=None, images=3 * 49, steps_per_epoch=1, batch_size=49, name="") == 3


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("optimizer.warmup", {"steps": -1}, "optimizer.warmup_steps is -1"),
        ("optimizer.warmup", {"epochs": -0.5}, "optimizer.warmup_epochs is -0.5"),
        ("evaluate.every", {"images": -32}, "evaluate.every_images is -32"),
        ("checkpoint.every", {"steps": 3, "epochs": -1.0}, "checkpoint.every_epochs is -1.0"),  # also one not used
        ("", {"epochs": math.nan}, "epochs is nan"),
        ("", {"epochs": math.inf}, "epochs is inf"),
    ],
)
def test_an_invalid_duration_names_its_field(name, given, field):
    with pytest.raises(UserError) as error:
        steps_of(name=name, **given)
    assert str(error.value) == f"{field}; allowed: a number from 0, or None"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("", "steps, images, epochs"),
        ("optimizer.warmup", "optimizer.warmup_steps, optimizer.warmup_images, optimizer.warmup_epochs"),
    ],
)
def test_no_duration_names_all_three_fields(name, fields):
    with pytest.raises(UserError) as error:
        steps_of(name=name)
    assert str(error.value).startswith(f"{fields} are all None")
