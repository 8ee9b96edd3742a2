"""The queue: its contents at each step, and its allowed sizes."""

import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.method.key_queue import empty_queue, enqueue, num_slots, queue_contents


def keys_of_step(step, num_views=1):
    """Two images; every number encodes its step, view and image."""
    embeddings = np.array([[[100 * step + 10 * view + image] * 3 for view in range(num_views)] for image in range(2)])
    return {"embeddings": jnp.float32(embeddings), "labels": jnp.float32(-embeddings[..., :2])}


@pytest.mark.parametrize(("slots", "num_views"), [(3, 1), (4, 2), (3, 2), (1, 1)])
def test_it_holds_the_newest_keys_of_earlier_steps(slots, num_views):
    queue, expected = empty_queue(slots, 2, embeddings=3, labels=2), []
    for step in range(8):
        contents, filled = queue_contents(queue)
        held = sorted(float(row[0]) for row in contents["embeddings"][filled])
        assert held == sorted(expected)
        np.testing.assert_array_equal(contents["labels"][:, 0], -contents["embeddings"][:, 0])
        queue = enqueue(queue, keys_of_step(step, num_views), step)
        expected += [100.0 * step + 10 * view + image for view in range(num_views) for image in range(2)]
        expected = expected[-2 * slots :]


def test_the_queue_is_empty_before_the_first_step():
    _, filled = queue_contents(empty_queue(4, 2, embeddings=3, labels=2))
    assert not filled.any()


def test_a_step_that_was_skipped_leaves_no_key():
    queue = empty_queue(3, 2, embeddings=3, labels=2)
    for step in (0, 2):  # step 1 was skipped: its slot was never written
        queue = enqueue(queue, keys_of_step(step), step)
    contents, filled = queue_contents(queue)
    assert filled.tolist() == [True, True, False, False, True, True]
    assert sorted(contents) == ["embeddings", "labels"]


def test_a_size_that_is_not_a_multiple_of_the_batch_names_its_neighbors():
    assert num_slots(0, 32) == 0
    assert num_slots(96, 32) == 3
    assert num_slots(64, 32, num_key_views=2) == 2
    with pytest.raises(UserError, match=r"queue_size is 100; .* nearest: 96 or 128"):
        num_slots(100, 32)
    with pytest.raises(UserError, match=r"queue_size is 32; .* nearest: 0 or 64"):
        num_slots(32, 32, num_key_views=2)
