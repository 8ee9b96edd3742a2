"""Paired tests by hand, against a simulation, and in degenerate cases."""

import itertools
import math

import numpy as np
import pytest

from gensupcon_jax.evaluation.paired import (
    adjusted_p_values,
    coin_p_value,
    compare_on_images,
    compare_over_seeds,
    spread,
)


def right(text):
    return np.array([letter == "x" for letter in text])


def test_mcnemar_by_hand():
    # Of 10 images, 4 only by the first and 1 only by the second: 5 tosses, 4 or more alike: 2 (5 + 1) / 32.
    found = compare_on_images(right("xxxxxxxx.."), right("xxxx....x."))
    assert (found.only_first, found.only_second, found.num_images) == (4, 1, 10)
    assert found.p_value == pytest.approx(12 / 32)
    assert found.difference == pytest.approx(30.0)
    # Agresti and Min: (4 - 1) / 12 +- 1.96 sqrt((6 / 12 - (3 / 12)^2) / 12).
    assert (found.low, found.high) == pytest.approx((25 - 37.42, 25 + 37.42), abs=0.01)


@pytest.mark.parametrize(("heads", "tails"), [(0, 0), (0, 1), (3, 3), (0, 6), (2, 7)])
def test_the_p_value_is_the_share_of_all_sequences_of_tosses(heads, tails):
    sequences = list(itertools.product((0, 1), repeat=heads + tails))
    uneven = [abs(2 * sum(tosses) - len(tosses)) >= abs(heads - tails) for tosses in sequences]
    assert coin_p_value(heads, tails) == pytest.approx(sum(uneven) / len(sequences))


def test_exchanged_predictors_have_the_opposite_difference():
    first, second = right("xxx.x.xx"), right("x.xxx.x.")
    one, other = compare_on_images(first, second), compare_on_images(second, first)
    assert one.p_value == other.p_value
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))


def test_equal_predictors_do_not_differ():
    found = compare_on_images(right("xx.x" * 50), right("xx.x" * 50))
    assert (found.p_value, found.difference) == (1.0, 0.0)
    assert found.low < 0 < found.high < 1.5


def test_the_extremes_stay_inside_the_scale():
    found = compare_on_images(right("x" * 3), right("." * 3))
    assert found.difference == 100.0 and found.high == 100.0


def test_the_interval_holds_the_truth_in_95_of_100_cases():
    random, inside = np.random.default_rng(0), 0
    for _ in range(2000):  # 8 % only by the first, 3 % only by the second: the truth is 5 points
        cell = random.choice(4, size=400, p=[0.08, 0.03, 0.8, 0.09])
        found = compare_on_images((cell == 0) | (cell == 2), (cell == 1) | (cell == 2))
        inside += found.low <= 5.0 <= found.high
    assert 0.935 < inside / 2000 < 0.975


def test_spread():
    assert spread([90.0, 92.0, 94.0]) == (92.0, 2.0, 3)
    assert spread([90.0])[::2] == (90.0, 1) and math.isnan(spread([90.0]).deviation)


def test_seeds_by_hand():
    # Differences 1, 2, 3: mean 2, error 1 / sqrt(3); t of 2 degrees of freedom: 4.3027.
    found = compare_over_seeds([91.0, 93.0, 95.0], [90.0, 91.0, 92.0])
    assert found.difference == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    # P(|t| > 3.4641) for 2 degrees of freedom: 1 - t / sqrt(2 + t^2).
    assert found.p_value == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))


def test_equal_differences():
    assert compare_over_seeds([91.0, 92.0], [90.0, 91.0]) == (1.0, 1.0, 1.0, 0.0)
    assert compare_over_seeds([90.0, 91.0], [90.0, 91.0]) == (0.0, 0.0, 0.0, 1.0)


def test_holm_by_hand():
    assert adjusted_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted_p_values([0.6, 0.7]) == [1.0, 1.0]
    assert adjusted_p_values([]) == []
