"""Progressive resizing: sizes at literal steps, the same views as a run of that size, resumed bit for bit, on any devices."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import imagenet
from gensupcon_jax.data import datasets
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import assemble, train
from gensupcon_jax.run.config_check import check_config
from gensupcon_jax.run.estimate import seconds_left
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.view_sizes import SizedSteps, parts_of, size_at, view_sizes, weighted_steps
from gensupcon_jax.store import checkpoint
from tests.encoded import write_folder
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]
# 96 training images in batches of 32: 3 steps per epoch.
SIZED = {"augment.sizes": (4, 6, 8), "augment.size_epochs": (1.0, 5 / 3), "steps": 7}


def sizes_of(config, per_epoch, total):
    return [(each.size, each.steps) for each in view_sizes(config, 8, per_epoch, total)]


def test_sizes_at_literal_steps():
    config = tiny_config(**SIZED)
    assert sizes_of(config, 3, 7) == [(4, range(3)), (6, range(3, 5)), (8, range(5, 7))]
    assert sizes_of(config, 3, 4) == [(4, range(3)), (6, range(3, 4))]  # a short run does not reach the last size
    assert sizes_of(config, 3, 0) == [(4, range(0))]
    assert sizes_of(tiny_config(), 3, 7) == [(8, range(7))]
    short = imagenet.get_config("short")
    lengths = assemble.lengths(short, 1238)
    found = view_sizes(short, 224, lengths.per_epoch, lengths.total_steps)
    assert found == ((160, range(37_140)), (192, range(37_140, 49_520)))


def test_the_size_of_a_step_and_the_sizes_of_some_steps():
    sizes = view_sizes(tiny_config(**SIZED), 8, 3, 7)
    assert [sizes[size_at(sizes, step)].size for step in range(9)] == [4, 4, 4, 6, 6, 8, 8, 8, 8]
    assert parts_of(sizes, range(2, 6)) == [(4, range(2, 3)), (6, range(3, 5)), (8, range(5, 6))]
    assert parts_of(sizes, range(6, 9)) == [(8, range(6, 9))]  # the picture of a batch after the run
    assert parts_of(view_sizes(tiny_config(), 8, 3, 0), range(1)) == [(8, range(1))]


def test_the_time_left_counts_larger_views_by_their_pixels():
    sizes = (SizedSteps(4, range(10)), SizedSteps(8, range(10, 15)))
    assert [weighted_steps(sizes, done) for done in (0, 4, 10, 11, 15)] == [10 + 5 * 4, 6 + 20, 20, 4, 0]


def test_the_estimate_of_a_run_knows_its_sizes(tmp_path):
    run = build_run(tiny_config(**SIZED), tmp_path, tiny_dataset(), devices=DEVICE)
    left = run.amounts_left(2)
    assert (left.steps, left.weighted_steps) == (5, 1 + 2 * 36 / 16 + 2 * 64 / 16)
    assert seconds_left(left, 10.0, 0.0)[0] == 135.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"augment.sizes": (4, 8)},
            "augment.size_epochs is (); allowed with augment.sizes (4, 8): 1 numbers, one for each",
        ),
        ({"augment.size_epochs": (3.0,)}, "augment.size_epochs is (3.0,); allowed with augment.sizes None: 0 numbers"),
        (
            {"augment.sizes": (4, 6, 8), "augment.size_epochs": (2.0, 2.0)},
            "augment.size_epochs is (2.0, 2.0); allowed: ascending numbers",
        ),
        ({"augment.sizes": (0,)}, "augment.sizes is (0,); allowed: one or more in parentheses"),
        ({"augment.sizes": ()}, "augment.sizes is (); allowed: one or more in parentheses"),
    ],
)
def test_what_is_refused(changes, problem):
    with pytest.raises(UserError) as refused:
        check_config(tiny_config(**changes))
    assert str(refused.value).startswith(problem)


def test_sizes_that_patches_do_not_divide_are_refused(tmp_path):
    config = tiny_config(
        **SIZED
        | {"augment.sizes": (16, 20, 32), "dataset.image_size": 32, "model.name": "vit_tiny_patch16", "model.width": 6}
    )
    with pytest.raises(UserError, match=r"augment\.sizes is \(16, 20, 32\), but patches of 16 pixels do not divide 20"):
        build_run(config, tmp_path, tiny_dataset(), devices=DEVICE)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = write_folder(tmp_path_factory.mktemp("sizes") / "trees", splits={"train": 6, "test": 2})
    return datasets.load(f"folder:{root}", image_size=8, validation_fraction=0)


def encoded_config(**changes):
    return tiny_config(**{"batch_size": 8, "dataset.image_size": 8, **SIZED} | changes)


def test_crops_of_the_host_have_the_size_of_their_step_and_are_those_of_a_run_of_that_size(trees, tmp_path):
    """24 images in batches of 8: 3 steps per epoch, as above."""
    run = build_run(encoded_config(), tmp_path, trees, devices=DEVICE)
    batches = list(run.batches(0, 7))
    assert [batch.images.shape for batch in batches] == [(8, 2, size, size, 3) for size in (4, 4, 4, 6, 6, 8, 8)]
    for size, steps in ((4, range(3)), (6, range(3, 5)), (8, range(5, 7))):
        only = {"augment.sizes": (size,), "augment.size_epochs": ()}
        plain = build_run(encoded_config(**only), tmp_path, trees, devices=DEVICE).batches(steps.start, steps.stop)
        for step, expected in zip(steps, plain, strict=True):
            np.testing.assert_array_equal(batches[step].images, expected.images)
            np.testing.assert_array_equal(batches[step].labels, expected.labels)
    for start in (1, 3, 4, 6):  # resumed in the middle of each size, and at its beginning
        (again,) = run.batches(start, start + 1)
        np.testing.assert_array_equal(again.images, batches[start].images)


def test_views_of_images_in_memory_have_the_size_of_their_step(tmp_path):
    run = build_run(tiny_config(**SIZED), tmp_path, tiny_dataset(), devices=DEVICE)
    (batch,) = run.batches(3, 4)
    for step, size in ((0, 4), (3, 6), (6, 8)):
        shape = jax.eval_shape(run.parts.at(step).view_fn, run.key("step"), batch.images, batch.labels, 0).images.shape
        assert shape == (32, 2, size, size, 1)
    evaluated = jnp.zeros((2, 8, 8, 1))  # of the size of the data, whatever that of the views
    state = assemble.abstract_state(run.parts)
    assert jax.eval_shape(
        lambda state: run.parts.predict_fn(state, {}, evaluated.astype(jnp.uint8)), state
    ).features.shape == (2, 16)


def steps_taken(num_devices, folder, num_steps=7):
    """The state after some steps, of views of every size, and the losses."""
    devices = jax.devices()[:num_devices]
    run = build_run(tiny_config(**SIZED, **{"model.batch_norm": "sync"}), folder, tiny_dataset(), devices=devices)
    state, losses = run.initial_state(), []
    key = sharding.place(run.key("step"), sharding.replicated(run.mesh))
    for step, batch in enumerate(run.batches(0, num_steps)):
        state, metrics = run.parts.at(step).train_step_fn(state, run.frozen, batch, key)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


@pytest.mark.slow
def test_steps_of_every_size_are_the_same_on_1_2_and_8_devices(tmp_path):
    state, losses = steps_taken(1, tmp_path)
    for num_devices in (2, 8):
        other, other_losses = steps_taken(num_devices, tmp_path)
        np.testing.assert_allclose(losses, other_losses, rtol=1e-4)
        for first, second in zip(
            *(jax.tree.leaves((each.params, each.batch_stats)) for each in (state, other)), strict=True
        ):
            np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_in_the_middle_of_each_size(tmp_path, capfd):
    config = tiny_config(**SIZED, **{"checkpoint.every_steps": 1, "checkpoint.keep": 10, "evaluate.every_epochs": 0.0})
    results = train.train_and_evaluate(config, tmp_path / "whole", tiny_dataset(), devices=DEVICE)
    said = capfd.readouterr().err
    assert "8 x 8 pixels (evaluated whole, views of 4, 6, 8)" in said
    assert "from step 4 on views have 6 x 6 pixels" in said and "from step 6 on views have 8 x 8 pixels" in said
    names = ("params", "batch_stats", "opt_state")
    expected = checkpoint.read_newest(tmp_path / "whole" / "checkpoints", names).fields
    for start in (2, 4, 6):  # in the middle of sizes 4, 6 and 8
        folder = shutil.copytree(tmp_path / "whole", tmp_path / f"from_{start}")
        for name in ("results.json", "report.html"):
            (folder / name).unlink()
        for step in range(start + 1, 8):
            shutil.rmtree(folder / "checkpoints" / f"{step}")
        resumed = train.train_and_evaluate(config, folder, tiny_dataset(), devices=DEVICE)
        assert resumed["linear_top1"] == results["linear_top1"]
        found = checkpoint.read_newest(folder / "checkpoints", names).fields
        jax.tree.map(np.testing.assert_array_equal, found, expected)
