"""Every recipe and variant is a config that fits its rules, and its step traces at full size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import (
    cifar10,
    cifar100,
    cifar100_coarse,
    cifar100_lt,
    digits,
    fashion_mnist,
    imagenet,
    variants,
)
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.run import assemble
from gensupcon_jax.run.config_check import check_config
from gensupcon_jax.weights import teachers

DATA = {  # image size, channels, classes, training images
    cifar10: (32, 3, 10, 50_000),
    cifar100: (32, 3, 100, 50_000),
    cifar100_coarse: (32, 3, 100, 50_000),
    cifar100_lt: (32, 3, 100, 10_847),
    fashion_mnist: (28, 1, 10, 54_000),
    imagenet: (224, 3, 1000, 1_268_355),
}
# CIFAR-100 has the recipe of CIFAR-10 (tested below), so only one of its variants is traced.
ALL = [
    (recipe, variant)
    for recipe in DATA
    for variant in getattr(recipe, "VARIANTS", variants.VARIANTS)
    if (recipe is not cifar100 or variant == "genscl_teacher") and (recipe, variant) != (cifar100_lt, "supcon")
]


def name_of(value):
    return value if isinstance(value, str) else value.__name__.split(".")[-1]


def data_shape(recipe):
    size, channels, classes, _ = DATA[recipe]
    return DataShape(size, channels, classes, np.full(channels, 0.5, np.float32), np.full(channels, 0.25, np.float32))


def linear_teacher(data):
    """The smallest classifier: one matrix on all pixels."""
    return teachers.Teacher(
        variables=jax.ShapeDtypeStruct((data.image_size**2 * data.num_channels, data.num_classes), jnp.float32),
        logits_fn=lambda matrix, images: images.reshape(len(images), -1) @ matrix,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        num_channels=data.num_channels,
        fingerprint="0",
        name="linear",
    )


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "variant"), ALL, ids=name_of)
def test_the_step_of_every_recipe_traces_at_full_size(recipe, variant):
    config = recipe.get_config(variant)
    check_config(config)
    data = data_shape(recipe)
    mesh = sharding.make_mesh(jax.devices()[:1])
    lengths = assemble.lengths(config, DATA[recipe][3] // config.batch_size)
    teacher = linear_teacher(data) if config.teacher.kind != "none" else None
    parts = assemble.build_parts(config, data, lengths, mesh, teacher)
    state = assemble.abstract_state(parts)
    frozen = {"teacher": teacher.variables} if teacher else {}
    if config.objective == "linear_probe":
        sample = jnp.zeros((1, data.image_size, data.image_size, data.num_channels))
        model = assemble.encoder_of(config, data)
        frozen["encoder"] = jax.eval_shape(lambda key: model.init(key, sample, method="features"), jax.random.key(0))
    key = jax.eval_shape(lambda: jax.random.key(0))
    after, metrics = jax.eval_shape(parts.train_step_fn, state, frozen, assemble.abstract_batch(config, data), key)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics["loss"].shape == ()
    assert lengths.total_steps > 100


def test_cifar100_has_the_recipe_of_cifar10_on_its_own_data():
    for variant in variants.VARIANTS:
        expected = cifar10.get_config(variant)
        expected.dataset.name = "tfds:cifar100"
        for group, field in (("teacher", "path"), ("model", "weights")):
            if expected[group][field] is not None:
                expected[group][field] = expected[group][field].replace("cifar10_", "cifar100_")
        assert cifar100.get_config(variant) == expected
        check_config(cifar100.get_config(variant))


def test_the_variants_differ_where_they_should():
    objectives = {variant: cifar10.get_config(variant).objective for variant in variants.VARIANTS}
    assert objectives == {
        "supcon": "contrastive",
        "genscl": "contrastive",
        "genscl_teacher": "contrastive",
        "gpaco": "contrastive",
        "cross_entropy": "cross_entropy",
        "teacher": "cross_entropy",
        "linear_probe": "linear_probe",
    }
    assert cifar10.get_config("supcon").mix.kind == "none"
    assert cifar10.get_config("genscl").mix.kind == "mixup_cutmix"
    assert cifar10.get_config("genscl_teacher").teacher.path == "runs/cifar10_teacher"
    assert imagenet.get_config().loss.mode == "momentum"
    local, plain = (imagenet.get_config(variant) for variant in ("local", "supcon"))
    assert (local.objective, local.mix.kind, local.augment.local_views, plain.augment.local_views) == (
        "contrastive", "none", 8, 0,
    )  # fmt: skip


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"unknown variant 'moco'; allowed: supcon, genscl, "):
        cifar10.get_config("moco")


def test_every_recipe_documents_the_command_of_every_stage():
    stages = ("teacher", "genscl_teacher", "linear_probe")
    own = {
        cifar100_coarse: cifar100_coarse.VARIANTS[1:],
        cifar100_lt: cifar100_lt.VARIANTS[1:],
        imagenet: imagenet.VARIANTS[2:],
    }
    for recipe in DATA:
        for variant in own.get(recipe, stages):
            assert f"--config configs/{name_of(recipe)}.py:{variant}" in recipe.__doc__
    assert "--config configs/digits.py" in digits.__doc__
