"""Exported ONNX models: for every architecture the features in onnxruntime are ours."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from gensupcon_jax.models import ENCODERS, build_backbone
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights.onnx_model import onnx_model
from tests.weights.onnx_runs import images_of, outputs_of


def a_network(name, size, channels, **fields):
    """Function of uint8 images -> features, for a network with random weights of the usual sizes."""
    backbone = build_backbone(name=name, image_size=size, batch_norm="local", **fields)
    images = jnp.zeros((1, size, size, channels))
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        value = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return value * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        return np.abs(value) + np.float32(0.5) if path[-1].key == "var" else value * np.float32(0.5)

    variables = jax.tree_util.tree_map_with_path(drawn, shapes)  # half of the scales are negative
    mean, std = np.full(channels, 0.4, np.float32), np.full(channels, 0.2, np.float32)
    return lambda images: backbone.apply(variables, normalize(images, mean, std), train=False)


RESNETS = [name for name in ENCODERS if name.startswith("resnet")]
CASES = [
    *[
        (name, 16, channels, {"width": 4, "stem": "cifar"})
        for name, channels in zip(RESNETS, (1, 3, 1, 3, 1), strict=True)
    ],
    *[
        (name, 35, channels, {"width": 4, "stem": "imagenet"})
        for name, channels in zip(RESNETS, (3, 1, 3, 1, 3), strict=True)
    ],
    *[
        (f"vit_{size}_patch{patch}", 2 * patch, channels, {"width": 12, "pool": pool})
        for size, channels in (("tiny", 1), ("small", 3), ("base", 3))
        for patch, pool in ((4, "class"), (8, "average"), (16, "class"))
    ],
]


def test_every_architecture_is_a_case():
    assert {name for name, *_ in CASES} == {name for name in ENCODERS if name.startswith(("resnet", "vit"))}
    assert len(RESNETS) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "channels", "fields"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_features_are_ours_for_any_batch_size(name, size, channels, fields):
    function = a_network(name, size, channels, **fields)
    model = onnx_model(function, images_of(size, size, channels), {})
    images = np.random.default_rng(1).integers(0, 256, (3, size, size, channels), np.uint8)
    expected = np.asarray(jax.jit(function)(images))
    assert expected.std() > 1e-2  # images give different features
    for count in (1, 3):
        np.testing.assert_allclose(
            outputs_of(model, images[:count]), expected[:count], atol=1e-4 * np.abs(expected).max()
        )


def test_the_model_is_one_that_older_runtimes_read():
    content = onnx_model(a_network("resnet_small", 8, 3, width=4), images_of(8, 8, 3), {"step": "4", "mean": "[0.4]"})
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"step": "4", "mean": "[0.4]"}
    (images,), (features,) = model.graph.input, model.graph.output
    kinds = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    assert (images.type.tensor_type.elem_type, features.type.tensor_type.elem_type) == kinds
    sizes = [
        [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in (images, features)
    ]
    assert sizes == [["batch", 8, 8, 3], ["batch", 16]]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_resnet_is_transposed_once_and_convolves_only(stem):
    content = onnx_model(a_network("resnet50", 35, 3, width=4, stem=stem), images_of(35, 35, 3), {})
    counts = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
    assert (counts["Transpose"], counts["Conv"], counts["MatMul"]) == (1, 53, 0)


def test_an_encoder_of_another_package_is_translated():
    class Plugged(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            x = nn.gelu(nn.GroupNorm(2)(nn.Conv(8, (3, 3), (2, 2))(images)))
            x = x * nn.sigmoid(nn.Dense(8)(x.mean((1, 2))))[:, None, None]
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            return nn.Dense(6)(nn.swish(x).reshape(x.shape[0], -1))

    network = Plugged()
    variables = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)

    def function(images):
        return network.apply(variables, images.astype(jnp.float32) / 255, train=False)

    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = outputs_of(onnx_model(function, images_of(8, 8, 3), {}), images)
    np.testing.assert_allclose(found, function(images), atol=1e-5)
