"""Values as distributions over bins: literal shares, the cosine that the docs promise, and bins that do not fit."""

import math

import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.value_bins import ValueBins, bins_for


def normal_share(low, high, mean, width):
    """The share of a normal distribution between two ends, by its error function."""
    return 0.5 * (math.erf((high - mean) / width / math.sqrt(2)) - math.erf((low - mean) / width / math.sqrt(2)))


def test_a_value_is_the_normal_distribution_around_it_cut_off_at_the_ends():
    bins = ValueBins(10.0, 20.0, 5, 1.5)
    for value in (10.0, 13.2, 20.0):
        shares = [normal_share(low, low + 2, value, 1.5) for low in (10, 12, 14, 16, 18)]
        expected = np.array(shares) / sum(shares)
        np.testing.assert_allclose(bins.labels(np.array([value]))[0], expected, atol=1e-6)
    assert bins.labels(np.array([10.0, 15.0, 20.0])).sum(1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert bins.names == ("10 to 12", "12 to 14", "14 to 16", "16 to 18", "18 to 20")


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 3.0])
def test_the_cosine_of_two_labels_falls_with_the_squared_distance(distance):
    width = 2.0
    bins = ValueBins(0.0, 100.0, 200, width)
    left, right = bins.labels(np.array([40.0, 40.0 + distance * width])).astype(np.float64)
    cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    assert cosine == pytest.approx(math.exp(-(distance**2) / 4), abs=0.002)


def test_the_mean_of_a_label_is_its_value_away_from_the_ends():
    bins = ValueBins(-5.0, 5.0, 40, 0.5)
    values = np.array([-2.0, 0.3, 2.125])
    np.testing.assert_allclose(bins.expected(bins.labels(values)), values, atol=1e-3)


def test_a_width_far_below_a_bin_still_gives_a_distribution():
    bins = ValueBins(0.0, 4.0, 4, 1e-6)
    assert bins.labels(np.array([0.5, 3.9])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_bins_follow_the_values_where_nothing_else_is_said():
    assert bins_for(np.array([3.0, 23.0, 8.0]), num_bins=64) == ValueBins(3.0, 23.0, 64, 1.0)
    assert bins_for(np.array([3.0]), num_bins=10, width=5, value_range=(0, 50)) == ValueBins(0.0, 50.0, 10, 5.0)


@pytest.mark.parametrize(
    ("value", "found"),
    [(20.5, "1 of 3 images, first 20.5 in row 1"), (-0.1, "first -0.1 in row 1"), (float("nan"), "first nan in row 1")],
)
def test_values_that_no_bin_covers_are_one_line_that_names_the_field(value, found):
    with pytest.raises(UserError) as error:
        ValueBins(0.0, 20.0, 40, 1.0).check(np.array([3.0, value, 5.0]), "test values")
    text = str(error.value)
    assert found in text and "allowed: 0 to 20; change dataset.value_range" in text and "\n" not in text


def test_equal_values_and_bins_that_hide_the_width_are_refused():
    with pytest.raises(UserError, match="all 3 values are 2; allowed: different values"):
        bins_for(np.full(3, 2.0), num_bins=10)
    with pytest.raises(UserError, match=r"dataset\.num_bins is 4, .* allowed: 50 or more bins, or a larger width"):
        bins_for(np.array([0.0, 100.0]), num_bins=4, width=1.0)
