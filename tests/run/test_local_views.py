"""Local views of a config: sizes, refusals in one line, crops of their own range, and whole runs that resume."""

import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import common
from gensupcon_jax.data.shapes import DataShape, LocalCrops
from gensupcon_jax.errors import RunStopped, UserError
from gensupcon_jax.models import ENCODERS
from gensupcon_jax.run import assemble, progress, train
from gensupcon_jax.run.config_check import check_config
from gensupcon_jax.run.local_views import local_crops, views_in_pixels
from tests.encoded import write_folder
from tests.run.test_train import rows_of
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset


def config_of(**changes):
    return tiny_config(**{"augment.local_views": 3} | {name.replace("__", "."): each for name, each in changes.items()})


def shape_of(size=8, channels=1, **fields):
    return DataShape(size, channels, 4, np.float32([0.5] * channels), np.float32([0.25] * channels), **fields)


@pytest.mark.parametrize(("image_size", "size"), [(224, 96), (128, 55), (32, 14), (8, 3), (2, 1), (1, 1)])
def test_their_usual_size_is_96_of_224_pixels(image_size, size):
    assert local_crops(config_of(), image_size) == LocalCrops(3, size, (0.05, 0.25))
    assert local_crops(config_of(augment__local_views=0), image_size) is None


def test_a_local_view_counts_by_its_pixels():
    assert views_in_pixels(config_of(augment__local_views=8, augment__local_size=112), 224) == 2 + 8 / 4
    assert views_in_pixels(config_of(augment__local_views=0), 224) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"objective": "cross_entropy", "augment.num_views": 1},
            "augment.local_views is 6; allowed with objective cross_entropy: 0",
        ),
        (
            {"augment.policy": "none"},
            "augment.local_views is 6; allowed with augment.policy none, which has no crops: 0",
        ),
        ({"augment.local_views": -1}, "augment.local_views is -1; allowed: a whole number from 0"),
        ({"augment.local_size": 0}, "augment.local_size is 0; allowed: a whole number from 1, or None"),
        (
            {"augment.local_scale": (0.2, 0.1)},
            "augment.local_scale is (0.2, 0.1); allowed: two numbers above 0, the smaller first, up to 1",
        ),
    ],
)
def test_a_config_that_cannot_have_them_is_refused_in_one_line(changes, sentence):
    config = common.get_config()
    config.augment.local_views = 6
    check_config(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        check_config(config)
    assert str(error.value) == sentence


class OneSize(nn.Module):
    """An encoder that takes images of one size only."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(4)(images.reshape(images.shape[0], -1))


@pytest.mark.parametrize(
    ("changes", "size", "sentence"),
    [
        (
            {"augment__local_size": 9},
            8,
            "augment.local_size is 9; allowed: 1 to 8, the size of the views in pixels, or None for 3",
        ),
        (
            {"model__name": "vit_tiny_patch4", "model__width": 6, "augment__local_size": 14},
            32,
            "augment.local_size is 14, which patches of 4 pixels do not divide; set it to 12 or 16, or choose an encoder with "
            "other patches",
        ),
        (
            {"model__name": "vit_tiny_patch8", "model__width": 6},
            8,
            "augment.local_size is 3, which patches of 8 pixels do not divide; set it to 8, or choose an encoder with other "
            "patches",
        ),
        (
            {"model__name": "one_size"},
            8,
            "augment.local_size is 3, but this model.name takes only images of 8 pixels",
        ),
    ],
)
def test_a_size_that_does_not_fit_is_refused_in_one_line_before_compilation(monkeypatch, changes, size, sentence):
    monkeypatch.setitem(ENCODERS, "one_size", lambda settings: OneSize())
    config = config_of()
    with config.unlocked():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    with pytest.raises(UserError) as error:
        assemble.encoder_of(config, shape_of(size))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
    with config.unlocked():
        config.augment.local_views = 0
    assemble.encoder_of(config, shape_of(size))


def test_a_vision_transformer_takes_them_with_resized_positions():
    config = config_of(model__name="vit_tiny_patch4", model__width=6, augment__local_size=8)
    model = assemble.encoder_of(config, shape_of(16))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), train=False))
    found = jax.eval_shape(lambda v: model.apply(v, jnp.zeros((2, 8, 8, 1)), train=False), variables)
    assert found.features.shape == (2, 6)


def view_fn_of(config, data):
    mesh = sharding.make_mesh(jax.devices()[:1])
    return assemble.build_parts(config, data, assemble.lengths(config, 3), mesh).view_fn


PLAIN = {"augment__jitter_probability": 0.0, "augment__gray_probability": 0.0, "mix__kind": "none"}


def test_local_views_are_small_crops_of_their_own_range_and_the_views_stay_as_they_were():
    # Red rises to the right and green downwards: the extent of both in a crop is that of its box.
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], np.uint8(0)), -1)
    images = jnp.asarray(np.tile(image, (24, 1, 1, 1)))
    config = config_of(**PLAIN, augment__local_scale=(0.04, 0.16), augment__local_size=24, augment__local_views=4)
    data = shape_of(64, 3)._replace(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32))
    arguments = (jax.random.key(1), images, jnp.eye(4)[jnp.arange(24) % 4], 0)
    found = jax.jit(view_fn_of(config, data))(*arguments)
    assert found.local.images.shape == (24, 4, 24, 24, 3)
    for views, (low, high) in ((found.images, (0.7, 1.0)), (found.local.images, (0.04, 0.16))):
        sides = np.ptp(np.asarray(views), axis=(2, 3))[..., :2].clip(0, 1)
        areas = sides.prod(-1)
        assert low * 0.75 < areas.min() < low + 0.5 * (high - low), areas.min()
        assert low + 0.5 * (high - low) < areas.max() < high * 1.25, areas.max()
    plain = jax.jit(view_fn_of(config_of(**PLAIN, augment__local_views=0), data))(*arguments)
    np.testing.assert_array_equal(found.images, plain.images)


def test_beside_views_that_grow_their_usual_size_grows_too():
    config = config_of(augment__sizes=(8, 14), augment__size_epochs=(1.0,))
    data, mesh = shape_of(16), sharding.make_mesh(jax.devices()[:1])
    parts = assemble.build_parts(config, data, assemble.lengths(config, 3), mesh)
    images = jax.ShapeDtypeStruct((32, 16, 16, 1), jnp.uint8), jax.ShapeDtypeStruct((32, 4), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    found = [jax.eval_shape(part.view_fn, key, *images, jax.ShapeDtypeStruct((), jnp.int32)) for part in parts.sized]
    shapes = [(mixed.images.shape, mixed.local.images.shape) for mixed in found]
    assert shapes == [((32, 2, 8, 8, 1), (32, 3, 3, 3, 1)), ((32, 2, 14, 14, 1), (32, 3, 6, 6, 1))]
    encoded = assemble.abstract_batch(config, shape_of(16, is_encoded=True), 14)
    assert encoded.local_images is not None and encoded.local_images.shape == (32, 3, 6, 6, 1)
    config = config_of(augment__sizes=(8, 14), augment__size_epochs=(1.0,), augment__local_size=9)
    with pytest.raises(
        UserError, match="local_size is 9; allowed: 1 to 8, the size of the views in pixels, or None for 3"
    ):
        assemble.encoder_of(config, data)


def test_switched_off_they_leave_no_trace_in_the_program():
    programs = set()
    for fields in ({}, {"augment__local_size": 5, "augment__local_scale": (0.3, 0.4)}):
        config, data = config_of(augment__local_views=0, **fields), shape_of()
        batch = assemble.abstract_batch(config, data)
        assert batch.local_images is None
        program = jax.make_jaxpr(view_fn_of(config, data))(jax.random.key(0), batch.images, batch.labels, 0)
        programs.add(str(program))
    assert len(programs) == 1
    config, data = config_of(), shape_of()
    assert len(str(jax.make_jaxpr(view_fn_of(config, data))(jax.random.key(0), batch.images, batch.labels, 0))) > len(
        programs.pop()
    )


def test_encoded_images_come_with_their_local_crops():
    batch = assemble.abstract_batch(config_of(batch_size=32), shape_of(224, 3, is_encoded=True))
    assert batch.images.shape == (32, 2, 224, 224, 3)
    assert (batch.local_images.shape, batch.local_images.dtype) == ((32, 3, 96, 96, 3), np.dtype(np.uint8))


# ---- whole runs


def trained(folder, dataset=None, **changes):
    settings = {"augment.local_views": 3, "steps": 4, "log_steps": 1, "checkpoint.every_epochs": 1000.0} | changes
    results = train.train_and_evaluate(tiny_config(**settings), folder, dataset, devices=jax.devices()[:2])
    return results, rows_of(folder)


def assert_a_stopped_run_is_the_whole_run(tmp_path, monkeypatch, dataset=None, **changes):
    """-> the folder of the whole run."""
    _, whole = trained(tmp_path / "whole", dataset, **changes)
    real, count = progress.Progress.advance, []

    def stop_at_2(self):
        real(self)
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(progress.Progress, "advance", stop_at_2)
        with pytest.raises(RunStopped):
            trained(tmp_path / "stopped", dataset, **changes)
    _, rows = trained(tmp_path / "stopped", dataset, **changes)
    assert without_times(rows) == without_times(whole)
    assert all(np.isfinite(row["train/local_accuracy"]) for row in rows if "train/loss" in row)
    return tmp_path / "whole"


@pytest.mark.slow
def test_a_run_with_a_queue_resumes_bit_for_bit_and_its_report_shows_the_local_views(tmp_path, monkeypatch):
    momentum = {"loss.mode": "momentum", "loss.symmetric": True, "momentum_encoder.queue_size": 64}
    data = tiny_dataset(size=12, channels=3)
    folder = assert_a_stopped_run_is_the_whole_run(tmp_path, monkeypatch, data, **momentum)
    page = (folder / "report.html").read_text()
    assert "12 training images with their views, and their local views in proportion" in page
    assert page.count("<h4>local 3</h4>") == 12
    assert 'alt="local 1 of training image 1" style="width:42%"' in page  # 5 of 12 pixels


@pytest.mark.slow
def test_a_run_on_files_resumes_bit_for_bit(tmp_path, monkeypatch):
    trees = write_folder(tmp_path / "trees", splits={"train": 12, "validation": 3, "test": 3})
    files = {"dataset.name": f"folder:{trees}", "dataset.image_size": 12, "batch_size": 16, "mix.block": 4}
    assert_a_stopped_run_is_the_whole_run(tmp_path, monkeypatch, **files)
