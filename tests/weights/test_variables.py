"""Conversion of weights between the original names and layouts and ours."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import Classifier, build_backbone, build_model
from gensupcon_jax.weights.variables import fill, fitted, named_tensors, weights_fingerprint
from tests.original_weights import DATA, input_images, load_original, seeded_weights
from tests.store.test_saved_runs import assert_same, network

PARTS = ("backbone", "head", "classifier")


def original(file_name):
    """A golden file's weights under their own names, with the counters that real files have."""
    golden = np.load(DATA / file_name)
    shapes = {
        str(name): ast.literal_eval(str(shape)) for name, shape in zip(golden["names"], golden["shapes"], strict=True)
    }
    counters = {name: np.zeros((), np.int64) for name in shapes if name.endswith("num_batches_tracked")}
    return seeded_weights(shapes, int(golden["seed"])) | counters


def shapes_of(model, image_size=32):
    images = jnp.zeros((1, image_size, image_size, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def classifying_shapes(backbone, num_classes, image_size):
    """Shapes of a backbone and a classifier in the layout of a run."""
    of_backbone = shapes_of(backbone, image_size)
    features = jnp.zeros((1, backbone.feature_dim))
    of_classifier = jax.eval_shape(lambda: Classifier(num_classes).init(jax.random.key(0), features))
    shapes = {name: {"backbone": tree} for name, tree in of_backbone.items()}
    return shapes | {"params": shapes["params"] | {"classifier": of_classifier["params"]}}


def error_of(function, *arguments, **settings):
    with pytest.raises(UserError) as error:
        function(*arguments, **settings)
    return str(error.value)


# The originals (tests/test_models.py runs their features, embeddings and logits from `load_original`'s variables)


def test_supcontrast_names_fill_the_encoder_and_its_forward_is_reproduced():
    golden, expected = load_original("supcontrast_resnet18.npz")
    model = build_model(name="resnet18", image_size=32)
    variables = fill(shapes_of(model), original("supcontrast_resnet18.npz"), where="golden")
    assert_same(variables, jax.tree.map(np.asarray, expected))
    output = jax.jit(lambda images: model.apply(variables, images, train=False))(input_images(golden, 4, 32))
    np.testing.assert_allclose(output.features, golden["features"], rtol=1e-4, atol=1e-5 * golden["features"].max())
    np.testing.assert_allclose(output.embeddings, golden["embeddings"], rtol=1e-4, atol=1e-6)


def test_timm_names_fill_backbone_and_classifier():
    _, expected = load_original("timm_resnet50.npz")
    shapes = classifying_shapes(build_backbone(name="resnet50", image_size=224), 1000, 224)
    assert_same(fill(shapes, original("timm_resnet50.npz"), where="golden"), jax.tree.map(np.asarray, expected))


def test_other_parts_of_a_file_are_left_out_if_only_some_are_requested():
    shapes = shapes_of(build_model(name="resnet18", image_size=32, head="linear", embedding_dim=3))
    before = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), shapes)
    filled = fill(before, original("supcontrast_resnet18.npz"), where="golden", parts=("backbone",))
    assert_same(filled["params"]["head"], before["params"]["head"])
    expected = load_original("supcontrast_resnet18.npz")[1]
    assert_same(filled["params"]["backbone"], jax.tree.map(np.asarray, expected["params"]["backbone"]))


# Round trip


def supcontrast_names(named):
    return {
        name if name.startswith(("head", "fc")) else f"encoder.{name.replace('downsample', 'shortcut')}": value
        for name, value in named.items()
    }


@pytest.mark.parametrize("rename", [dict, supcontrast_names])
@pytest.mark.parametrize("wrap", ["{}", "module.{}"])
def test_ours_to_other_names_and_back_is_the_same(rename, wrap):
    variables = network()
    named = rename(named_tensors(variables, parts=PARTS))
    blank = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    assert_same(fill(blank, {wrap.format(name): value for name, value in named.items()}, where="here"), variables)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_exported_names_and_shapes_are_the_originals(name, head):
    model = build_model(name=name, image_size=32, head=head, width=4)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes_of(model))
    named = named_tensors(variables, parts=PARTS)
    known = original({"resnet18": "supcontrast_resnet18.npz", "resnet50": "timm_resnet50.npz"}[name])
    canonical = {key.removeprefix("encoder.").replace("shortcut", "downsample") for key in known}
    backbone = {key for key in canonical if not key.startswith(("fc", "head")) and "num_batches" not in key}
    assert {key for key in named if not key.startswith("head")} == backbone
    layers = {"linear": ("head",), "mlp": ("head.0", "head.2")}[head]
    assert {key for key in named if key.startswith("head")} == {
        f"{la}.{p}" for la in layers for p in ("weight", "bias")
    }
    assert named["layer2.0.downsample.0.weight"].shape[2:] == (1, 1)
    assert all(value.flags.c_contiguous for value in named.values())


def test_a_head_is_not_part_of_timms_networks():
    assert not any(name.startswith("head") for name in named_tensors(network()))
    assert {"fc.weight", "conv1.weight"} <= set(named_tensors(network()))


def test_the_fingerprint_of_weights_is_that_of_names_and_values():
    first, other = network(seed=0), network(seed=1)
    assert weights_fingerprint(first) == weights_fingerprint(jax.tree.map(jnp.asarray, network(seed=0)))
    assert len({weights_fingerprint(tree) for tree in (first, other, {"params": first["params"]})}) == 3


# Vision transformers

VIT_SMALL = dict(line.split(" ", 1) for line in (DATA / "timm_vit_small_patch16_224.txt").read_text().splitlines())


def vit_shapes(name="vit_small_patch16", image_size=224, num_classes=1000, **fields):
    """Shapes of a vision transformer and a classifier in the layout of a run."""
    return classifying_shapes(build_backbone(name=name, image_size=image_size, **fields), num_classes, image_size)


def test_the_names_and_shapes_of_timms_vit_small_are_ours():
    """Its list: timm 1.0.31's `vit_small_patch16_224().state_dict()`."""
    shapes = {name: ast.literal_eval(shape) for name, shape in VIT_SMALL.items()}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), vit_shapes())
    assert {name: value.shape for name, value in named_tensors(zeros).items()} == shapes
    weights = {name: np.full(shape, number, np.float32) for number, (name, shape) in enumerate(shapes.items())}
    filled = fill(vit_shapes(), weights, where="vit_small_patch16_224.safetensors")
    assert jax.tree.map(np.shape, filled) == jax.tree.map(np.shape, zeros)
    assert filled["params"]["backbone"]["block12"]["mlp"]["fc2"]["kernel"][0, 0] == list(shapes).index(
        "blocks.11.mlp.fc2.weight"
    )


def test_a_vit_to_timms_names_and_back_is_the_same():
    rng = np.random.default_rng(0)
    shapes = vit_shapes("vit_tiny_patch4", 8, 3, width=12)
    shapes["params"]["head"] = {"output": {"kernel": np.zeros((12, 5)), "bias": np.zeros(5)}}
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)
    named = named_tensors(variables, parts=PARTS)
    assert named["head.weight"].shape == (3, 12)  # timm's classifier
    assert named["projection.weight"].shape == (5, 12)  # what SupContrast calls head
    np.testing.assert_array_equal(
        named["blocks.0.attn.qkv.weight"], variables["params"]["backbone"]["block1"]["attn"]["qkv"]["kernel"].T
    )
    assert_same(fill(shapes, named, where="here"), variables)


def test_a_vit_for_another_pool_or_width_is_refused():
    named = named_tensors(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), vit_shapes("vit_tiny_patch4", 8, 3, width=12))
    )
    message = error_of(fill, vit_shapes("vit_tiny_patch4", 8, 3, width=12, pool="average"), named, where="x")
    assert "2 missing in the file: fc_norm.bias, fc_norm.weight; 2 in the file but not here: norm." in message
    message = error_of(fill, vit_shapes("vit_tiny_patch4", 8, 3, width=24), named, where="x")
    assert "blocks.0.attn.proj.bias (12,) in the file, (24,) here" in message


def test_a_file_of_another_family_is_refused():
    own = {"params": {"backbone": {"Dense_0": {"kernel": np.zeros((2, 3), np.float32)}}}}
    named = {"cls_token": np.zeros((1, 1, 12), np.float32), "norm.weight": np.zeros(12, np.float32)}
    named |= {"blocks.0.norm1.bias": np.zeros(12, np.float32)}
    message = error_of(fill, own, named, where="vit.safetensors", parts=("backbone",))
    assert (
        "vit.safetensors (timm ViT names) does not fit backbone: 1 missing in the file: params.backbone.Dense_0.kernel"
        in message
    )
    assert "3 in the file but not here: cls_token, norm.weight, blocks.0.norm1.bias" in message


def test_weights_for_other_images_have_their_positions_resized():
    variables = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, np.float32), vit_shapes("vit_tiny_patch4", 8, 3, width=12)
    )
    larger = fitted(variables, 16)["params"]["backbone"]
    assert larger["pos_embed"].shape == (1, 17, 12)
    np.testing.assert_allclose(larger["pos_embed"], 1.0, rtol=1e-6)
    assert_same(fitted(variables, 8), variables)
    assert_same(fitted(network(), 16), network())


# Names that do not fit


def test_missing_unexpected_and_wrongly_shaped_names_are_listed_five_each():
    variables = network()
    named = supcontrast_names(named_tensors(variables, parts=PARTS))
    named |= {f"encoder.extra{number}": np.zeros(1) for number in range(7)}
    gone = [name for name in named if name.startswith("encoder.layer1.0.")]
    for name in gone:
        del named[name]
    named["encoder.conv1.weight"] = np.zeros((4, 1, 7, 7), np.float32)
    message = error_of(fill, variables, named, where="x.safetensors")
    assert "x.safetensors (SupContrast names) does not fit backbone and head and classifier" in message
    assert f"{len(gone)} missing in the file: encoder.layer1.0." in message
    assert sum(name in message for name in gone) == 5
    assert "7 in the file but not here: encoder.extra0," in message
    assert "encoder.extra4, and 2 more" in message
    assert "encoder.extra5" not in message
    assert "1 of another shape: encoder.conv1.weight (4, 1, 7, 7) in the file, (4, 1, 3, 3) here" in message


def test_a_file_without_a_requested_part_is_refused():
    headless = named_tensors(network())
    assert "4 missing in the file: head." in error_of(fill, network(), headless, where="x")
    assert_same(
        fill(network(seed=1), headless, where="x", parts=("backbone", "classifier"))["params"]["head"],
        network(seed=1)["params"]["head"],
    )
    classifier_alone = {name: value for name, value in headless.items() if name.startswith("fc.")}
    assert "45 missing in the file: bn1.bias" in error_of(
        fill, network(), classifier_alone, where="x", parts=("backbone",)
    )


def test_a_different_number_of_classes_is_named():
    named = named_tensors(network()) | {
        "fc.bias": np.zeros(10, np.float32),
        "fc.weight": np.zeros((10, 16), np.float32),
    }
    message = error_of(fill, network(), named, where="x", parts=("backbone", "classifier"))
    assert (
        "2 of another shape: fc.bias (10,) in the file, (4,) here, fc.weight (10, 16) in the file, (4, 16) here"
        in message
    )
