"""Sums, means and gathers over devices are those of all rows on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax import collectives
from gensupcon_jax.cluster.sharding import make_mesh

VALUES = np.float32([[3, 1], [4, 1], [5, 9], [2, 6]])
IN, SAME = PartitionSpec("data"), PartitionSpec()


def over_devices(function, out_specs=SAME, num_devices=4):
    mapped = jax.shard_map(function, mesh=make_mesh(jax.devices()[:num_devices]), in_specs=IN, out_specs=out_specs)
    return jax.jit(mapped)(VALUES)


@pytest.mark.parametrize("name", ["sum_over", "max_over"])
def test_over_an_axis_each_row_equals_that_of_one_device(name):
    expected = {"sum_over": [[14, 17]], "max_over": [[5, 9]]}[name]
    np.testing.assert_array_equal(over_devices(lambda rows: getattr(collectives, name)(rows, "data")), expected)
    np.testing.assert_array_equal(getattr(collectives, name)(VALUES, None), VALUES)


def test_a_mean_is_over_the_rows_of_all_devices():
    mean = over_devices(lambda rows: collectives.mean_over(rows[:, 0], "data"), num_devices=2)
    assert float(mean) == float(collectives.mean_over(jnp.asarray(VALUES[:, 0]), None)) == 3.5


def test_rows_are_numbered_and_gathered_in_the_order_of_the_devices():
    def numbers(rows):
        return collectives.first_number(len(rows), "data") + jnp.arange(len(rows))

    np.testing.assert_array_equal(over_devices(numbers, IN, num_devices=2), [0, 1, 2, 3])
    gathered = over_devices(lambda rows: collectives.gather(rows, "data")[None], PartitionSpec("data"), 2)
    np.testing.assert_array_equal(gathered, [VALUES, VALUES])
    assert collectives.first_number(4, None) == 0
    assert collectives.num_devices(None) == 1


def test_replicated_values_are_marked_as_varying():
    def known_axes(rows):
        same = {"a": jnp.ones(2), "b": rows}
        for axes in ("data", ("data",), frozenset({"data"})):
            declared = collectives.varying(same, axes)
            assert [jax.typeof(leaf).manual_axis_type.varying for leaf in declared.values()] == [{"data"}, {"data"}]
        assert jax.typeof(collectives.varying(same, None)["a"]).manual_axis_type.varying == set()
        return rows

    over_devices(known_axes, IN)


@pytest.mark.parametrize("axes", ["data", None, ()])
def test_outside_of_the_mapped_function_nothing_changes(axes):
    np.testing.assert_array_equal(collectives.varying(VALUES, axes), VALUES)


def test_rows_are_exchanged_in_equal_parts_and_come_back():
    def there(rows):
        return collectives.exchanged(rows, "data")

    # Of the rows 0, 1 | 2, 3 of two devices, each device gets one of each.
    np.testing.assert_array_equal(over_devices(there, IN, num_devices=2), VALUES[[0, 2, 1, 3]])
    np.testing.assert_array_equal(over_devices(lambda rows: there(there(rows)), IN, num_devices=2), VALUES)
    np.testing.assert_array_equal(collectives.exchanged(jnp.asarray(VALUES), None), VALUES)
