"""Weights both ways: the originals' names and ours, files, the portable features function, the command line."""

import argparse
import ast
import json
import sys
import types
from contextlib import nullcontext

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.flax
import safetensors.numpy

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import Classifier, build_backbone, build_model
from gensupcon_jax.store.saved_runs import run_backbone
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights import convert
from gensupcon_jax.weights.convert import fill, load_run, read_file, recognize, to_timm, write_safetensors
from tests.original_weights import DATA, input_images, load_original, seeded_weights
from tests.store.test_saved_runs import assert_same, make_probe, make_run, network

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
    return {
        "params": {"backbone": of_backbone["params"], "classifier": of_classifier["params"]},
        "batch_stats": {"backbone": of_backbone["batch_stats"]},
    }


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


def test_a_files_other_parts_are_left_out_where_only_some_are_asked_for():
    shapes = shapes_of(build_model(name="resnet18", image_size=32, head="linear", embedding_dim=3))
    before = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), shapes)
    filled = fill(before, original("supcontrast_resnet18.npz"), where="golden", parts=("backbone",))
    assert_same(filled["params"]["head"], before["params"]["head"])
    expected = load_original("supcontrast_resnet18.npz")[1]
    assert_same(filled["params"]["backbone"], jax.tree.map(np.asarray, expected["params"]["backbone"]))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["encoder.conv1.weight", "head.0.weight"], ("SupContrast", ("backbone", "head"))),
        (["module.encoder.conv1.weight", "module.fc.bias"], ("SupContrast", ("backbone", "classifier"))),
        (["encoder.module.layer1.0.shortcut.0.weight"], ("SupContrast", ("backbone",))),
        (
            ["conv1.weight", "layer1.0.downsample.0.weight", "fc.weight"],
            ("timm / torchvision", ("backbone", "classifier")),
        ),
        (["fc.weight", "fc.bias"], ("head or classifier alone", ("classifier",))),
    ],
)
def test_names_are_recognized(names, found):
    assert tuple(recognize(names, where="file")) == found


@pytest.mark.parametrize("names", [["blocks.0.attn.qkv.weight"], []])
def test_other_names_are_refused(names):
    message = error_of(recognize, names, where="vit.safetensors")
    assert all(part in message for part in ("vit.safetensors", *names, "SupContrast", "timm"))


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
    named = rename(to_timm(variables, parts=PARTS))
    blank = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    assert_same(fill(blank, {wrap.format(name): value for name, value in named.items()}, where="here"), variables)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_exported_names_and_shapes_are_the_originals(name, head):
    model = build_model(name=name, image_size=32, head=head, width=4)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes_of(model))
    named = to_timm(variables, parts=PARTS)
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


def test_a_head_is_no_part_of_timms_networks():
    assert not any(name.startswith("head") for name in to_timm(network()))
    assert {"fc.weight", "conv1.weight"} <= set(to_timm(network()))


def test_identity_is_that_of_names_and_values():
    first, other = network(seed=0), network(seed=1)
    assert convert.identity(first) == convert.identity(jax.tree.map(jnp.asarray, network(seed=0)))
    assert len({convert.identity(tree) for tree in (first, other, {"params": first["params"]})}) == 3


# Names that do not fit


def test_missing_unexpected_and_wrongly_shaped_names_are_listed_five_each():
    variables = network()
    named = supcontrast_names(to_timm(variables, parts=PARTS))
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
    assert "encoder.extra4, ..." in message
    assert "encoder.extra5" not in message
    assert "1 of another shape: encoder.conv1.weight (4, 1, 7, 7) in the file, (4, 1, 3, 3) here" in message


def test_a_file_without_a_part_that_is_asked_for_is_refused():
    headless = to_timm(network())
    assert "4 missing in the file: head." in error_of(fill, network(), headless, where="x")
    assert_same(
        fill(network(seed=1), headless, where="x", parts=("backbone", "classifier"))["params"]["head"],
        network(seed=1)["params"]["head"],
    )
    classifier_alone = {name: value for name, value in headless.items() if name.startswith("fc.")}
    assert "45 missing in the file: bn1.bias" in error_of(
        fill, network(), classifier_alone, where="x", parts=("backbone",)
    )


def test_another_number_of_classes_is_named():
    named = to_timm(network()) | {"fc.bias": np.zeros(10, np.float32), "fc.weight": np.zeros((10, 16), np.float32)}
    message = error_of(fill, network(), named, where="x", parts=("backbone", "classifier"))
    assert (
        "2 of another shape: fc.bias (10,) in the file, (4,) here, fc.weight (10, 16) in the file, (4, 16) here"
        in message
    )


# Files


def test_a_written_file_is_read_back_with_its_metadata(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    write_safetensors(path, to_timm(network()), {"format": "pt"})
    assert_same(read_file(path), to_timm(network()))
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"precious")
    assert "is there already and is not overwritten" in error_of(write_safetensors, path, to_timm(network()), {})
    assert path.read_bytes() == b"precious"


def test_half_precision_becomes_float32_and_wrappers_go(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"module.conv1.weight": jnp.full((2, 1, 3, 3), 1.5, jnp.bfloat16), "fc.bias": jnp.ones(2, jnp.float16)}
    safetensors.flax.save_file(tensors, path)
    named = read_file(path)
    assert {name: str(value.dtype) for name, value in named.items()} == {
        "conv1.weight": "float32",
        "fc.bias": "float32",
    }
    assert named["conv1.weight"].max() == 1.5


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "x.ckpt").touch()
    assert "cannot be read" in error_of(read_file, tmp_path / "damaged.safetensors")
    assert "is not there" in error_of(read_file, tmp_path / "none.safetensors")
    assert "allowed: .safetensors, .pth, .pt" in error_of(read_file, tmp_path / "x.ckpt")


def test_a_pth_file_without_torch_names_the_conversion(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pth").touch()
    message = error_of(read_file, tmp_path / "net.pth")
    assert all(part in message for part in ("PyTorch", "not installed", "net.safetensors", "save_file"))


class Tensor(np.ndarray):
    """As much of torch.Tensor as is used."""

    def detach(self):
        return self

    def is_floating_point(self):
        return self.dtype.kind == "f"

    def float(self):
        return self.astype(np.float32)

    def numpy(self):
        return np.asarray(self)


def fake_torch(content, allowed):
    """A torch whose `load` gives this content, and only ever safely."""

    def load(path, *, map_location, weights_only):
        assert (map_location, weights_only) == ("cpu", True)
        if isinstance(content, Exception):
            raise content
        return content

    def safe_globals(classes):
        allowed.extend(classes)
        return nullcontext()

    return types.SimpleNamespace(load=load, serialization=types.SimpleNamespace(safe_globals=safe_globals))


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"model": state, "epoch": 3}, lambda state: {"state_dict": state}]
)
def test_pth_files_are_read_safely_with_and_without_wrappers(tmp_path, monkeypatch, wrap):
    (tmp_path / "net.pth").touch()
    state = {"module.fc.bias": np.ones(2, np.float64).view(Tensor), "n": np.zeros((), np.int64).view(Tensor)}
    allowed = []
    monkeypatch.setitem(sys.modules, "torch", fake_torch(wrap(state), allowed))
    named = read_file(tmp_path / "net.pth")
    assert {name: str(value.dtype) for name, value in named.items()} == {"fc.bias": "float32", "n": "int64"}
    assert allowed == [argparse.Namespace]  # SupContrast's files have one; nothing else is unpickled


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"optimizer": 1, "epoch": 2}, "but optimizer, epoch"),
        ([1], "but list"),
        (ValueError("evil"), "cannot be read (ValueError)"),
    ],
)
def test_pth_files_of_something_else_are_refused(tmp_path, monkeypatch, content, part):
    (tmp_path / "net.pt").touch()
    monkeypatch.setitem(sys.modules, "torch", fake_torch(content, []))
    assert part in error_of(read_file, tmp_path / "net.pt")


# Runs


def test_a_probe_of_a_file_has_the_files_backbone(tmp_path):
    path = tmp_path / "net.safetensors"
    write_safetensors(path, to_timm(network(seed=5)), {})
    run = load_run(make_probe(tmp_path / "probe", path, **{"model.width": 4}), need="classifier")
    assert_same(run.variables["params"]["backbone"], network(seed=5)["params"]["backbone"])
    assert_same(run.variables["batch_stats"], network(seed=5)["batch_stats"])
    assert_same(run.variables["params"]["classifier"], network(seed=1, parts=("classifier",))["params"]["classifier"])
    assert "does not fit backbone" in error_of(load_run, make_probe(tmp_path / "narrow", path, **{"model.width": 2}))


# The features function and the command line


def expected_features(run, images):
    images = normalize(images, np.array(run.description["mean"]), np.array(run.description["std"]))
    variables = {name: tree["backbone"] for name, tree in run.variables.items()}
    return run_backbone(run).apply(variables, images, train=False)


def test_the_artifact_gives_the_runs_features_for_any_batch_size(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    path = tmp_path / "out" / "x.stablehlo"
    convert.main(["export", "--workdir", str(folder), "--output", str(path)])
    assert "cpu, cuda, tpu" in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    expected = expected_features(load_run(folder), images)
    for count in (1, 5):
        features = exported.call(images[:count])
        assert (features.shape, features.dtype) == ((count, 16), jnp.float32)
        np.testing.assert_allclose(features, expected[:count], rtol=1e-5)
    convert.main(["show", str(path)])
    assert "uint8[batch,8,8,1] -> float32[batch,16]" in capsys.readouterr().out


def test_exported_weights_are_loadable_and_say_what_they_are(tmp_path, capsys):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.safetensors"
    convert.main(["export", "--workdir", str(folder), "--output", str(path)])
    assert_same(read_file(path), to_timm(network()))
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["architecture"] == "resnet_small"
    assert (metadata["stem"], metadata["width"], metadata["step"]) == ("cifar", "4", "4")
    assert json.loads(metadata["image_shape"]) == [8, 8, 1]
    capsys.readouterr()
    convert.main(["show", str(path)])
    shown = capsys.readouterr().out.splitlines()
    assert "timm / torchvision names; backbone, classifier; 47 tensors" in shown[0]
    assert any(line.split() == ["fc.weight", "(4,", "16)", "float32"] for line in shown[1:])


def test_the_head_is_exported_on_request(tmp_path):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.safetensors"
    convert.main(["export", "--workdir", str(folder), "--output", str(path), "--head"])
    assert_same(fill(network(seed=1), read_file(path), where="x"), network())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ("command", "--help")),
        (["evaluate"], ("evaluate", "export", "show")),
        (["export", "--workdir", "run"], ("--output",)),
        (["export", "--workdir", "none", "--output", "x.safetensors"], ("none is no folder",)),
        (["export", "--workdir", "run", "--output", "x.onnx"], ("x.onnx", ".safetensors or .stablehlo")),
        (["export", "--workdir", "run", "--output", "old.stablehlo"], ("old.stablehlo", "not overwritten")),
        (["show", "none.safetensors"], ("is not there",)),
        (["show", "none.stablehlo"], ("is not there",)),
        (["show", "old.stablehlo"], ("cannot be read",)),
        (["show", "run"], ("is no file of weights",)),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line(tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "old.stablehlo").write_bytes(b"old")
    with pytest.raises(SystemExit) as stop:
        convert.main(arguments)
    assert str(stop.value.code).startswith("error: ")
    assert all(part in stop.value.code for part in parts)
    assert "\n" not in stop.value.code
    assert (tmp_path / "old.stablehlo").read_bytes() == b"old"
