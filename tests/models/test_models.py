"""Encoders: arithmetic and sizes of the originals, statistics across devices, unit embeddings, refusals."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import (
    Classifier,
    HeadedEncoder,
    LinearHead,
    ResNet,
    build_backbone,
    build_model,
    choose_stem,
    unit_normalize,
)
from tests.original_weights import input_images, load_original

BATCH = PartitionSpec("data")
REPLICATED = PartitionSpec()


def small_model(**fields):
    return build_model(**{"name": "resnet_small", "image_size": 8, "width": 4, "embedding_dim": 6} | fields)


# Most of the time of this file is compilation: the programs are small and run once.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@partial(quick_jit, static_argnums=0)
def initialize(model):
    return model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), train=False)


def initial_shapes(model, image_size, channels):
    images = jnp.zeros((1, image_size, image_size, channels))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return jax.tree.map(jnp.shape, variables)


@partial(quick_jit, static_argnums=0, static_argnames="method")
def evaluate(model, variables, images, method=None):
    return model.apply(variables, images, train=False, method=method)


@partial(quick_jit, static_argnums=0)
def train_forward(model, variables, images):
    return model.apply(variables, images, train=True, mutable=["batch_stats"])


def random_images(count=16, image_size=8, channels=1):
    return jax.random.normal(jax.random.key(1), (count, image_size, image_size, channels))


def relative_error(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


# The originals


def test_supcontrast_resnet18_forward_is_reproduced():
    golden, variables = load_original("supcontrast_resnet18.npz")
    model = build_model(name="resnet18", image_size=32)
    output = evaluate(model, variables, input_images(golden, 4, 32))
    assert relative_error(output.features, golden["features"]) < 1e-5
    assert relative_error(output.embeddings, golden["embeddings"]) < 1e-5


def test_timm_resnet50_forward_is_reproduced():
    golden, variables = load_original("timm_resnet50.npz")
    backbone = {collection: tree["backbone"] for collection, tree in variables.items()}
    classifier = {"params": variables["params"]["classifier"]}
    model = build_backbone(name="resnet50", image_size=224)
    features = evaluate(model, backbone, input_images(golden, 2, 224))
    assert relative_error(features, golden["features"]) < 1e-5
    assert relative_error(Classifier(1000).apply(classifier, features), golden["logits"]) < 1e-5


def test_original_weights_fill_the_whole_encoder():
    _, variables = load_original("supcontrast_resnet18.npz")
    expected = initial_shapes(build_model(name="resnet18", image_size=32), image_size=32, channels=3)
    assert jax.tree.map(jnp.shape, variables) == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160)],
)
def test_parameters_are_as_many_as_published(name, count):
    backbone = build_backbone(name=name, image_size=224)

    def classify():
        images = jnp.zeros((1, 224, 224, 3))
        features, variables = backbone.init_with_output(jax.random.key(0), images, train=False)
        return variables["params"], Classifier(1000).init(jax.random.key(0), features)["params"]

    assert sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(classify))) == count


# Shapes, stems, heads


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [("resnet_small", 8, 128), ("resnet_small", 28, 128), ("resnet18", 32, 512), ("resnet50", 96, 2048)],
)
def test_features_and_embeddings_have_the_stated_shapes(name, size, dim):
    model = build_model(name=name, image_size=size, embedding_dim=32)
    assert model.backbone.feature_dim == dim
    output, _ = jax.eval_shape(
        lambda images: model.init_with_output(jax.random.key(0), images, train=False), jnp.zeros((3, size, size, 1))
    )
    assert output.features.shape == (3, dim)
    assert output.embeddings.shape == (3, 32)


def test_stem_follows_the_image_size_unless_a_field_sets_it():
    assert [choose_stem(size) for size in (8, 28, 32, 64, 65, 224)] == ["cifar"] * 4 + ["imagenet"] * 2
    assert build_backbone(name="resnet18", image_size=32, stem="imagenet").stem == "imagenet"
    assert build_backbone(name="resnet18", image_size=224, stem="cifar").stem == "cifar"


def test_width_scales_every_stage():
    assert build_backbone(name="resnet50", image_size=32, width=16).feature_dim == 512


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({"head": "linear"}, {"output": {"kernel": (16, 6), "bias": (6,)}}),
        ({}, {"hidden": {"kernel": (16, 16), "bias": (16,)}, "output": {"kernel": (16, 6), "bias": (6,)}}),
        (
            {"head_hidden_dim": 24},
            {"hidden": {"kernel": (16, 24), "bias": (24,)}, "output": {"kernel": (24, 6), "bias": (6,)}},
        ),
    ],
)
def test_heads_have_the_stated_layers(fields, layers):
    assert initial_shapes(small_model(**fields), image_size=8, channels=1)["params"]["head"] == layers


def test_features_alone_need_no_head():
    model = small_model()
    variables = initialize(model)
    images = random_images(4)
    headless = {"params": {"backbone": variables["params"]["backbone"]}, "batch_stats": variables["batch_stats"]}
    features = evaluate(model, headless, images, method="features")
    np.testing.assert_array_equal(features, evaluate(model, variables, images).features)


def test_initial_scale_is_that_of_pytorch():
    params = initialize(ResNet(stage_sizes=(1, 1), width=32))["params"]
    for name, fan_out in (("conv1", 9 * 64), ("shortcut_conv", 64)):
        kernel = params["stage2_block1"][name]["kernel"]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.05)
    layer = quick_jit(Classifier(50).init)(jax.random.key(0), jnp.zeros((1, 400)))["params"]["output"]
    for leaf in jax.tree.leaves(layer):
        assert 0.045 < jnp.abs(leaf).max() <= 0.05  # Uniform within 1 / sqrt(400).


# Unit normalization


def test_embeddings_have_unit_length():
    model = small_model()
    embeddings = evaluate(model, initialize(model), random_images()).embeddings
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=-1), 1, rtol=1e-6)


def directed_sum(vectors):
    return (unit_normalize(vectors) * jnp.array([1.0, 2.0])).sum()


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-11, 1e12, 1e25, 8e37])
def test_unit_normalize_keeps_the_direction(scale):
    vectors = jnp.array([[3.0, 4.0]]) * scale
    for run in (unit_normalize, jax.jit(unit_normalize)):
        np.testing.assert_allclose(run(vectors), [[0.6, 0.8]], rtol=1e-6)
    # As below; the gradient goes with 1 / length, and what float32 cannot hold of that is 0.
    expected = np.array([[-0.064, 0.048]]) / scale
    np.testing.assert_allclose(jax.grad(directed_sum)(vectors), expected, rtol=1e-5, atol=1.2e-38)


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_unit_normalize_keeps_divergence_visible(entry):
    vectors = jnp.array([[entry, 1.0], [3.0, 4.0]])
    for run in (unit_normalize, jax.jit(unit_normalize)):
        found = run(vectors)
        assert np.isnan(found[0]).all()
        np.testing.assert_allclose(found[1], [0.6, 0.8], rtol=1e-6)
    gradient = jax.grad(directed_sum)(vectors)
    assert np.isnan(gradient[0]).all() and np.isfinite(gradient[1]).all()


def test_unit_normalize_has_the_gradient_of_its_slope():
    vectors, weights = jax.random.normal(jax.random.key(3), (2, 5, 8))
    gradient = jax.grad(lambda vectors: (unit_normalize(vectors) * weights).sum())(vectors)
    exact, weights = np.float64(vectors), np.float64(weights)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    unit_vectors = exact / length
    expected = (weights - (weights * unit_vectors).sum(axis=1, keepdims=True) * unit_vectors) / length
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_zero_embedding_stays_zero_with_finite_gradient():
    vectors = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    value, gradient = jax.value_and_grad(directed_sum)(vectors)
    np.testing.assert_allclose(value, 2.2, rtol=1e-6)
    # d/dv of w . v / |v| is (w - (w . u) u) / |v|, u = v / |v|.
    np.testing.assert_allclose(gradient, [[0, 0], [-0.064, 0.048]], atol=1e-6)


# Precision


def test_bfloat16_computes_low_and_keeps_the_rest_float32():
    model = small_model(dtype="bfloat16", batch_norm="local")
    variables = initialize(small_model())
    captured = {"mutable": ["batch_stats", "intermediates"], "capture_intermediates": True}
    output, updates = jax.eval_shape(lambda: model.apply(variables, random_images(), train=True, **captured))
    inside = updates.pop("intermediates")["backbone"]
    del inside["__call__"]  # The features.
    assert {leaf.dtype for leaf in jax.tree.leaves(inside)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updates, output))} == {jnp.dtype("float32")}
    full = evaluate(small_model(), variables, random_images())
    low = evaluate(model, variables, random_images())
    np.testing.assert_allclose(low.embeddings, full.embeddings, atol=0.05)
    np.testing.assert_allclose(jnp.linalg.norm(low.embeddings, axis=-1), 1, rtol=1e-6)


# Batch statistics


def test_running_statistics_move_a_tenth_of_the_way_and_only_while_training():
    model = small_model(batch_norm="local")
    images = random_images()
    variables = initialize(small_model())
    convolved = jax.lax.conv_general_dilated(
        images,
        variables["params"]["backbone"]["stem_conv"]["kernel"],
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    _, updates = train_forward(model, variables, images)
    found = updates["batch_stats"]["backbone"]["stem_bn"]
    np.testing.assert_allclose(found["mean"], 0.1 * convolved.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * convolved.var((0, 1, 2)), rtol=1e-5)
    _, updates = quick_jit(lambda: model.apply(variables, images, train=False, mutable=["batch_stats"]))()
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


def shallow_model(batch_norm):
    backbone = ResNet(stage_sizes=(1,), width=4, axis_name="data" if batch_norm == "sync" else None)
    return HeadedEncoder(backbone, LinearHead(6))


@cache
def train_on_devices(batch_norm, num_devices):
    """Embeddings, new statistics and parameter gradients of one batch spread over devices."""
    model = shallow_model(batch_norm)
    mesh = jax.make_mesh(
        (num_devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:num_devices]
    )

    def loss(params, batch_stats, images, weights):
        output, updates = model.apply(
            {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
        )
        value = jax.lax.psum((output.embeddings * weights).sum(), "data")
        return value, (output.embeddings, updates["batch_stats"])

    def step(variables, images, weights):
        gradients, (embeddings, batch_stats) = jax.grad(loss, has_aux=True)(
            variables["params"], variables["batch_stats"], images, weights
        )
        if batch_norm == "local":  # Each device has its own statistics: the state keeps their mean.
            batch_stats = jax.lax.pmean(batch_stats, "data")
        return embeddings, batch_stats, gradients

    sharded = jax.shard_map(
        step, mesh=mesh, in_specs=(REPLICATED, BATCH, BATCH), out_specs=(BATCH, REPLICATED, REPLICATED)
    )
    weights = jax.random.normal(jax.random.key(2), (16, 6))
    return jax.tree.map(np.asarray, quick_jit(sharded)(initialize(model), random_images(16), weights))


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_sync_statistics_are_those_of_the_whole_batch(num_devices):
    assert_close(train_on_devices("sync", num_devices), train_on_devices("local", 1))


def test_local_statistics_are_those_of_the_device():
    embeddings, batch_stats, _ = train_on_devices("local", 2)
    assert np.abs(embeddings - train_on_devices("local", 1)[0]).max() > 1e-2
    model = shallow_model("local")
    halves = [train_forward(model, initialize(model), half) for half in jnp.split(random_images(16), 2)]
    assert_close(embeddings, np.concatenate([output.embeddings for output, _ in halves]))
    mean = jax.tree.map(lambda first, second: (first + second) / 2, halves[0][1], halves[1][1])
    assert_close(batch_stats, mean["batch_stats"])


# Bad input


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"name": "resnet19"}, ("model.name", "resnet19", "resnet_small, resnet18")),
        ({"stem": "large"}, ("model.stem", "large", "auto, cifar, imagenet")),
        ({"head": "none"}, ("model.head", "none", "linear, mlp")),
        ({"dtype": "float16"}, ("model.dtype", "float16", "float32, bfloat16")),
        ({"batch_norm": "none"}, ("model.batch_norm", "none", "sync, local")),
        ({"width": 0}, ("model.width", "0", ">= 1")),
        ({"embedding_dim": 0}, ("model.embedding_dim", "0", ">= 1")),
        ({"head_hidden_dim": -1}, ("model.head_hidden_dim", "-1", "None")),
    ],
)
def test_a_value_that_is_not_allowed_names_field_value_and_choice(fields, parts):
    with pytest.raises(UserError) as error:
        small_model(**fields)
    assert all(part in str(error.value) for part in parts)
