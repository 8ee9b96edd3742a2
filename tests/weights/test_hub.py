"""The folder for timm: its config and names literally, and, where there is a Python with timm, its features."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import build_backbone
from gensupcon_jax.store.saved_runs import SavedRun, run_backbone
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights import hub
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.names import VIT, family_of
from tests.tiny import tiny_config, tiny_dataset

TIMM_PYTHON = os.environ.get("TIMM_PYTHON") or (sys.executable if find_spec("timm") else None)


def a_run(folder, name, size=32, channels=3, *, classes=4, model=None):
    """A run that was not trained: random weights, no checkpoint."""
    config = ml_collections.ConfigDict(tiny_config(**{"model.width": None}).to_dict())
    config.update_from_flattened_dict(
        {"model.name": name, **{f"model.{key}": value for key, value in (model or {}).items()}}
    )
    description = tiny_dataset().description() | {
        "image_shape": [size, size, channels],
        "encoded": True,
        "center_share": 0.875,
        "mean": [0.5, 0.4, 0.3][:channels],
        "std": [0.25, 0.2, 0.3][:channels],
        "class_names": ["ant", "bee", "cat", "dog"],
    }
    run = SavedRun(folder, config, description, {}, 7)
    backbone = run_backbone(run)
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros((1, size, size, channels)), train=False))
    layers = {"backbone": shapes["params"]}
    if classes:
        kernel = jax.ShapeDtypeStruct((backbone.feature_dim, classes), jnp.float32)
        layers["classifier"] = {"output": {"kernel": kernel, "bias": jax.ShapeDtypeStruct((classes,), jnp.float32)}}
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        value = rng.standard_normal(leaf.shape, np.float32)
        if path[-1].key == "kernel":
            return value * np.float32(np.sqrt(1 / np.prod(leaf.shape[:-1])))
        return np.abs(value) + np.float32(0.5) if path[-1].key in ("var", "scale") else value * np.float32(0.1)

    variables = {
        "params": layers,
        "batch_stats": {"backbone": shapes["batch_stats"]} if "batch_stats" in shapes else {},
    }
    return run._replace(variables=jax.tree_util.tree_map_with_path(drawn, variables))


@pytest.mark.parametrize(
    ("name", "size", "channels", "fields", "expected"),
    [
        ("resnet18", 224, 3, {}, ("resnet18", {})),
        ("resnet34", 96, 1, {}, ("resnet34", {"in_chans": 1})),
        ("resnet50", 32, 3, {"stem": "imagenet"}, ("resnet50", {})),
        ("resnet101", 224, 3, {"width": 64}, ("resnet101", {})),
        ("vit_tiny_patch16", 224, 3, {}, ("vit_tiny_patch16_224", {})),
        ("vit_small_patch16", 32, 3, {}, ("vit_small_patch16_224", {"img_size": 32})),
        ("vit_small_patch8", 224, 3, {}, ("vit_small_patch8_224", {})),
        ("vit_base_patch8", 64, 1, {}, ("vit_base_patch8_224", {"in_chans": 1, "img_size": 64})),
        ("vit_tiny_patch4", 32, 3, {}, ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4})),
        ("vit_base_patch16", 224, 3, {"pool": "average"}, ("vit_base_patch16_224", {"global_pool": "avg"})),
        ("vit_small_patch16", 224, 3, {"width": 192}, ("vit_small_patch16_224", {"embed_dim": 192})),
    ],
)
def test_timms_name_and_arguments(name, size, channels, fields, expected):
    assert (
        hub.timm_network(name, build_backbone(name=name, image_size=size, **fields), (size, size, channels)) == expected
    )


@pytest.mark.parametrize(
    ("name", "fields", "parts"),
    [
        ("resnet_small", {}, ("timm has no network like resnet_small", "resnet18, resnet34, resnet50, resnet101")),
        ("resnet18", {"stem": "cifar"}, ("model.stem 'cifar' and width 64", "the ImageNet stem and width 64")),
        ("resnet50", {"stem": "imagenet", "width": 32}, ("model.stem 'imagenet' and width 32",)),
    ],
)
def test_a_network_that_timm_lacks_is_refused(name, fields, parts):
    with pytest.raises(UserError) as error:
        hub.timm_network(name, build_backbone(name=name, image_size=32, **fields), (32, 32, 3))
    assert [part for part in (*parts, "safetensors, stablehlo or onnx") if part not in str(error.value)] == []


def test_the_config_of_a_resnet_is_this(tmp_path):
    run = a_run(tmp_path, "resnet18", 96, 1)
    hub.write_folder(run, tmp_path / "hub", license="apache-2.0")
    assert json.loads((tmp_path / "hub" / "config.json").read_text()) == {
        "architecture": "resnet18",
        "num_classes": 4,
        "num_features": 512,
        "global_pool": "avg",
        "label_names": ["ant", "bee", "cat", "dog"],
        "model_args": {"in_chans": 1},
        "pretrained_cfg": {
            "tag": "gensupcon",
            "custom_load": False,
            "input_size": [1, 96, 96],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": [0.5],
            "std": [0.25],
            "num_classes": 4,
            "pool_size": None,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
    named = read_file(tmp_path / "hub" / "model.safetensors")
    assert len(named) == 20 + 4 * 20 + 2  # convolutions, BatchNorms, classifier: resnet18 of timm without its counters
    first = ["bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.weight", "conv1.weight", "fc.bias", "fc.weight"]
    block = [
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.weight",
        "bn2.bias",
        "bn2.running_mean",
        "bn2.running_var",
    ]
    block += ["bn2.weight", "conv1.weight", "conv2.weight", "downsample.0.weight"]
    block += [f"downsample.1.{leaf}" for leaf in ("bias", "running_mean", "running_var", "weight")]
    assert sorted(name for name in named if not name.startswith("layer")) == first
    assert sorted(name for name in named if name.startswith("layer2.0.")) == [f"layer2.0.{name}" for name in block]
    assert named["conv1.weight"].shape == (64, 1, 7, 7)


def test_the_config_of_a_transformer_without_a_classifier_is_this(tmp_path):
    run = a_run(tmp_path, "vit_tiny_patch4", 8, classes=0, model={"pool": "average"})
    config = hub.timm_config(run, run_backbone(run), hub.describe(run))
    assert config.pop("pretrained_cfg") == {
        "tag": "gensupcon",
        "custom_load": False,
        "input_size": [3, 8, 8],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.2, 0.3],
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    assert config == {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "num_features": 192,
        "global_pool": "avg",
        "model_args": {"img_size": 8, "patch_size": 4, "global_pool": "avg"},
    }


def test_the_model_card_says_data_recipe_results_and_license(tmp_path):
    found = {"steps": 7, "knn_top1": 91.23456, "train_seconds": 3.0, "per_class_top1": {"knn": [1.0]}}
    found |= {"best_step": 4, "best": {"knn_top1": 95.5, "probe_top1": 80.0}}
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert hub.results_of_step(tmp_path, 4) == {"knn_top1": 95.5, "probe_top1": 80.0}
    assert hub.results_of_step(tmp_path, 5) == hub.results_of_step(tmp_path / "none", 7) == {}
    run = a_run(tmp_path, "vit_tiny_patch16", 16)
    card = hub.model_card(run, {"architecture": "vit_tiny_patch16_224", "num_classes": 4, "num_features": 192},
                          hub.results_of_step(tmp_path, 7), license="cc-by-4.0")  # fmt: skip
    head, body = card.split("---\n")[1:]
    assert head.splitlines() == [
        "license: cc-by-4.0",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- timm",
        "- gensupcon_jax",
    ]
    lines = body.splitlines()
    assert lines[0] == "# vit_tiny_patch16_224 trained on arrays"
    for row in (
        "| name | arrays |",
        "| images for training | 96 |",
        "| classes | 4 |",
        "| mean | 0.5000, 0.4000, 0.3000 |",
        "| model.name | vit_tiny_patch16 |",
        "| batch_size | 32 |",
        "| knn_top1 | 91.23 |",
    ):
        assert row in lines, row
    results = [line.split("|")[1].strip() for line in lines[lines.index("## Results") :] if line.startswith("|")]
    assert results == ["measure", "---", "knn_top1"]
    assert not any(line.startswith("| loss.label_similarity |") for line in lines)  # has its default
    assert "The run did not measure step 7." in hub.model_card(
        run, {"architecture": "x", "num_classes": 0, "num_features": 1}, {}, license="unknown"
    )
    run.description["label_kind"] = "value"
    card = hub.model_card(run, {"architecture": "x", "num_classes": 4, "num_features": 1}, {}, license="unknown")
    assert "| bins of values | 4 |" in card and "| classes |" not in card


CASES = {
    **{name: (name, 64, 3, 4, {"stem": "imagenet"}) for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
    "gray": ("resnet18", 48, 1, 0, {"stem": "imagenet"}),
    **{f"vit_{size}_patch16": (f"vit_{size}_patch16", 32, 3, 4, {}) for size in ("tiny", "small", "base")},
    "patch 8 of timm": ("vit_small_patch8", 16, 3, 0, {}),
    "patch 4": ("vit_tiny_patch4", 16, 1, 4, {}),
    "average": ("vit_tiny_patch16", 48, 3, 4, {"pool": "average"}),
    "narrow": ("vit_tiny_patch8", 16, 3, 4, {"width": 48}),
    "whole size": ("vit_tiny_patch16", 224, 3, 0, {}),
}


@pytest.mark.slow
@pytest.mark.skipif(TIMM_PYTHON is None, reason="needs a Python with timm: make test-timm")
def test_timm_loads_the_folders_and_its_features_are_ours(tmp_path):
    ours = {}
    for case, (name, size, channels, classes, model) in CASES.items():
        run, folder = (
            a_run(tmp_path, name, size, channels, classes=classes, model=model),
            tmp_path / case.replace(" ", "_"),
        )
        hub.write_folder(run, folder, license="unknown")
        images = np.random.default_rng(1).integers(0, 256, (2, size, size, channels), np.uint8)
        np.save(folder / "images.npy", images)
        network = {kind: parts["backbone"] for kind, parts in run.variables.items() if parts}
        pixels = normalize(images, np.float32(run.description["mean"]), np.float32(run.description["std"]))
        features = np.asarray(run_backbone(run).apply(network, pixels, train=False))
        classifier = run.variables["params"].get("classifier", {}).get("output")
        ours[folder] = features, classifier and features @ classifier["kernel"] + classifier["bias"]
        assert family_of(run.variables) is VIT or name.startswith("resnet")
    script = Path(__file__).parent / "timm_features.py"
    done = subprocess.run([TIMM_PYTHON, script, *ours], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "timm 1." in done.stdout
    for folder, (features, logits) in ours.items():
        found = np.load(folder / "timm.npz")
        np.testing.assert_allclose(found["features"], features, atol=1e-4 * np.abs(features).max(), err_msg=str(folder))
        if logits is not None:
            np.testing.assert_allclose(found["logits"], logits, atol=1e-4 * np.abs(logits).max(), err_msg=str(folder))
        with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as file:
            assert int(file.metadata()["num_features"]) == found["num_features"]
        assert found["crop_pct"] == 0.875


def test_a_blurred_network_is_refused(tmp_path):
    run = a_run(tmp_path / "run", "resnet18", 64, model={"stem": "imagenet", "blur_pool": True})
    with pytest.raises(
        UserError, match=r"--format hub: model\.blur_pool is True, and timm blurs at other places; allowed"
    ):
        hub.write_folder(run, tmp_path / "hub", license="unknown")
