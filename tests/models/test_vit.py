"""Vision transformers: timm's arithmetic, timm's sizes, positions of other image sizes, and what is refused.

tests/data/timm_vit.npz was made with timm 1.0.31 and torch 2.13.0 on a CPU:

    def net(**fields):
        return timm.models.vision_transformer.VisionTransformer(
            img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5, dynamic_img_size=True, **fields
        ).eval()

    shapes = {name: tuple(tensor.shape) for name, tensor in net().state_dict().items()}   # names, shapes
    weights = tests.original_weights.seeded_weights(shapes, 11)   # seed; loaded into both networks, norm as fc_norm
    images = default_rng(12).standard_normal((3, 3, 16, 16))      # input_seed
    larger = default_rng(12).standard_normal((2, 3, 24, 24))
    features = net.forward_head(net.forward_features(images), pre_logits=True)   # and logits = net(images)
    average_features: the same of net(global_pool="avg");  larger_features: of `larger`, by net()
    positions_RxC = timm.layers.pos_embed.resample_abs_pos_embed(weights["pos_embed"], [R, C])
"""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from gensupcon_jax.errors import UserError
from gensupcon_jax.method.optimizer import _is_weight
from gensupcon_jax.models import ENCODERS, Classifier, VisionTransformer, build_backbone
from gensupcon_jax.models.vit import resize_positions
from gensupcon_jax.plan import compare, figures, known
from gensupcon_jax.run.train import train_and_evaluate
from gensupcon_jax.weights.files import write_safetensors
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.teachers import load_teacher
from gensupcon_jax.weights.variables import fill
from tests.original_weights import DATA, input_images, seeded_weights
from tests.tiny import tiny_config, tiny_dataset

GOLDEN = np.load(DATA / "timm_vit.npz")
SHAPES = {str(name): ast.literal_eval(str(s)) for name, s in zip(GOLDEN["names"], GOLDEN["shapes"], strict=True)}
SIZES = known.DataSizes(image_size=8, num_channels=1, num_classes=4, num_images=96)
WEIGHTS = seeded_weights(SHAPES, int(GOLDEN["seed"]))


def tiny(**fields):
    return VisionTransformer(**{"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "num_heads": 2} | fields)


def shapes_of(backbone, size=16):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(lambda: backbone.init(jax.random.key(0), images, train=False))


def filled(backbone, named):
    """Variables of the backbone alone, from tensors by timm's names."""
    shapes = {"params": {"backbone": shapes_of(backbone)["params"]}}
    return {"params": fill(shapes, named, where="golden", parts=("backbone",))["params"]["backbone"]}


def features_of(backbone, variables, images):
    return jax.jit(lambda: backbone.apply(variables, images, train=False))()


def test_timms_features_are_reproduced():
    variables = filled(tiny(), WEIGHTS)
    features = features_of(tiny(), variables, input_images(GOLDEN, 3, 16))
    np.testing.assert_allclose(features, GOLDEN["features"], atol=1e-5)
    layer = {"params": {"output": {"kernel": WEIGHTS["head.weight"].T, "bias": WEIGHTS["head.bias"]}}}
    np.testing.assert_allclose(Classifier(5).apply(layer, features), GOLDEN["logits"], atol=1e-5)


def test_timms_average_of_the_patches_is_reproduced():
    named = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: w for name, w in WEIGHTS.items()}
    backbone = tiny(pool="average")
    features = features_of(backbone, filled(backbone, named), input_images(GOLDEN, 3, 16))
    np.testing.assert_allclose(features, GOLDEN["average_features"], atol=1e-5)


def test_larger_images_are_seen_with_resized_positions():
    variables, images = filled(tiny(), WEIGHTS), input_images(GOLDEN, 2, 24)
    np.testing.assert_allclose(features_of(tiny(), variables, images), GOLDEN["larger_features"], atol=1e-5)
    larger = tiny(image_size=24)
    shapes = {"params": {"backbone": shapes_of(larger, 24)["params"]}}
    resized = fill(shapes, WEIGHTS, where="golden", parts=("backbone",))["params"]["backbone"]
    assert resized["pos_embed"].shape == (1, 37, 32)
    np.testing.assert_allclose(features_of(larger, {"params": resized}, images), GOLDEN["larger_features"], atol=1e-5)


@pytest.mark.parametrize("grid", [(6, 6), (2, 3), (7, 7)])
def test_positions_are_resized_as_by_timm(grid):
    resized = resize_positions(jnp.asarray(WEIGHTS["pos_embed"]), grid)
    np.testing.assert_allclose(resized, GOLDEN[f"positions_{grid[0]}x{grid[1]}"], atol=1e-6)


def test_positions_of_the_same_grid_stay_as_they_are():
    positions = jnp.asarray(WEIGHTS["pos_embed"])
    assert resize_positions(positions, (4, 4)) is positions


@pytest.mark.parametrize(
    ("name", "count"), [("tiny", 5_717_416), ("small", 22_050_664), ("base", 86_567_656)]
)  # timm's vit_*_patch16_224, with the classifier of 1000 classes
def test_parameters_are_as_many_as_timms(name, count):
    backbone = build_backbone(name=f"vit_{name}_patch16", image_size=224)
    num = sum(leaf.size for leaf in jax.tree.leaves(shapes_of(backbone, 224)))
    assert num + 1000 * (backbone.feature_dim + 1) == count


def test_bfloat16_computes_low_and_keeps_the_rest_float32():
    variables = filled(tiny(), WEIGHTS)
    low = tiny(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(low))} == {jnp.dtype("float32")}
    images = input_images(GOLDEN, 3, 16)
    features = features_of(low, variables, images)
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, GOLDEN["features"], atol=0.1)
    assert np.abs(features - GOLDEN["features"]).max() > 1e-4


def test_initial_weights_are_drawn_as_timms():
    params = jax.jit(lambda: tiny(width=64).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False))()["params"]
    np.testing.assert_allclose(params["block1"]["attn"]["qkv"]["kernel"].std(), 0.02, rtol=0.05)
    np.testing.assert_allclose(params["pos_embed"].std(), 0.02, rtol=0.1)
    assert jnp.abs(params["cls_token"]).max() < 1e-5
    bound = (4 * 4 * 3) ** -0.5  # torch.nn.Conv2d: uniform within 1 / sqrt(fan in)
    assert 0.95 * bound < jnp.abs(params["patch_embed"]["kernel"]).max() <= bound
    assert 0.8 * bound < jnp.abs(params["patch_embed"]["bias"]).max() <= bound
    assert not params["block1"]["mlp"]["fc1"]["bias"].any()


@pytest.fixture
def shallow(monkeypatch):
    """The smallest one in the table with two blocks in place of twelve, which compile sooner."""

    def build(settings):
        return tiny(image_size=settings.image_size, width=12, pool=settings.pool, dtype=settings.dtype)

    monkeypatch.setitem(ENCODERS, "vit_tiny_patch4", build)


@pytest.mark.slow
def test_it_trains_and_a_probe_sees_larger_images(tmp_path, shallow):
    fields = {"model.name": "vit_tiny_patch4", "steps": 2}
    dataset, devices = tiny_dataset(), jax.devices()[:2]
    results = train_and_evaluate(tiny_config(**fields), tmp_path / "run", dataset, devices=devices)
    assert results["skipped_steps"] == 0
    probe = {"objective": "linear_probe", "augment.num_views": 1, "mix.kind": "none", "dataset.image_size": 16}
    given = {"model.weights": str(tmp_path / "run")}
    results = train_and_evaluate(tiny_config(**fields | probe | given), tmp_path / "probe", dataset, devices=devices)
    assert results["steps"] == 2
    probed = load_run(tmp_path / "probe", need="classifier").variables["params"]["backbone"]
    small = load_run(tmp_path / "run").variables["params"]["backbone"]
    assert (small["pos_embed"].shape, probed["pos_embed"].shape) == ((1, 5, 12), (1, 17, 12))
    np.testing.assert_array_equal(small["pos_embed"][:, 0], probed["pos_embed"][:, 0])


def test_a_file_of_timms_is_a_teacher(tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "vit_tiny_patch4", lambda settings: tiny(image_size=settings.image_size))
    write_safetensors(tmp_path / "vit.safetensors", WEIGHTS, {})
    teacher = load_teacher(
        kind="weights",
        path=tmp_path / "vit.safetensors",
        architecture="vit_tiny_patch4",
        dataset_description=tiny_dataset(channels=3).description(),
    )
    assert (teacher.image_size, teacher.num_channels) == (16, 3)
    logits = teacher.logits_fn(teacher.variables, input_images(GOLDEN, 3, 16))
    np.testing.assert_allclose(logits, GOLDEN["logits"], atol=1e-5)


def test_its_step_is_planned_with_its_parts(shallow):
    config = tiny_config(**{"model.name": "vit_tiny_patch4"})
    (plan,) = compare.plan(config, topologies=["gpu:2"], batch_sizes=[32], sizes=SIZES._asdict())  # lowers the step
    assert plan.memory["running statistics"] == 0
    assert plan.flops_per_image > 0
    scope = "jit(sharded)/shard_map/transpose(jvp(HeadedEncoder))/HeadedEncoder.features/backbone/"
    parts = {"patch_embed/conv": "patches", "block12/attn/qkv": "attention", "block2/mlp/fc1": "MLP", "add": "backbone"}
    assert {name: figures.group_of(scope + name) for name in parts} == parts


def test_what_is_no_matrix_of_a_layer_is_excluded_from_decay():
    params = shapes_of(tiny())["params"]
    decays = {"/".join(path) for path, is_weight in flatten_dict(_is_weight(params)).items() if is_weight}
    assert {name.split("/")[-1] for name in decays} == {"kernel"}
    assert len(decays) == 1 + 2 * 4


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"image_size": 30}, ("model.name", "16 pixels do not divide images of 30", "dataset.image_size")),
        ({"image_size": 32, "width": 100}, ("model.width is 100", "a multiple of 6")),
        ({"image_size": 32, "pool": "max"}, ("model.pool is 'max'", "class, average")),
    ],
)
def test_what_does_not_fit_names_the_field(fields, parts):
    with pytest.raises(UserError) as error:
        build_backbone(name="vit_small_patch16", **fields)
    assert all(part in str(error.value) for part in parts)
