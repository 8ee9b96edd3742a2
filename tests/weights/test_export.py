"""A run's weights as a file and its features as a portable function, through the command line."""

import json
import os
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from gensupcon_jax import __main__
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.models import ENCODERS
from gensupcon_jax.store.saved_runs import run_backbone
from gensupcon_jax.views.augment import normalize, resize
from gensupcon_jax.weights.artifact import json_path, read_artifact, stablehlo_function
from gensupcon_jax.weights.description import describe, description_of_file
from gensupcon_jax.weights.export import Options, export
from gensupcon_jax.weights.files import read_file, write_safetensors
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import fill, named_tensors, weights_fingerprint
from tests.running import told
from tests.store.test_saved_runs import DATASET, assert_same, make_run, network
from tests.weights.onnx_runs import outputs_of


def expected_features(run, images):
    images = normalize(images, np.array(run.description["mean"]), np.array(run.description["std"]))
    variables = {name: tree["backbone"] for name, tree in run.variables.items()}
    return run_backbone(run).apply(variables, images, train=False)


def run_command(capfd, *arguments):
    status, printed, said = told(capfd, *arguments)
    assert (status, said) == (0, "")
    return printed


@pytest.mark.parametrize("words", [["export"], ["weights", "export", "--workdir"]])
def test_the_artifact_returns_the_runs_features_for_any_batch_size(tmp_path, capfd, words):
    folder = make_run(tmp_path / "run")
    path = tmp_path / "out" / "x.stablehlo"
    printed = run_command(capfd, *words, folder, "--output", path)
    assert printed == f"{path}: images to features for cpu, cuda, tpu, from step 4 of {folder}\n"
    found = read_artifact(path)
    assert found.description == describe(load_run(folder))
    exported = stablehlo_function(found)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    expected = expected_features(load_run(folder), images)
    for count in (1, 5):
        features = exported.call(images[:count])
        assert (features.shape, features.dtype) == ((count, 16), jnp.float32)
        np.testing.assert_allclose(features, expected[:count], rtol=1e-5)


@pytest.mark.parametrize("model", [{}, {"model.dtype": "bfloat16"}])
def test_the_onnx_model_returns_the_runs_features(tmp_path, capfd, model):
    folder, path = make_run(tmp_path / "run", **model), tmp_path / "x.onnx"
    assert run_command(capfd, "export", folder, "--output", path) == (
        f"{path}: images to features for onnxruntime and others (opset 17), from step 4 of {folder}\n"
    )
    found = read_artifact(path)
    assert found.description == describe(load_run(folder))
    assert (found.made["opset"], found.made["ir_version"]) == (17, 8)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    expected = expected_features(load_run(make_run(tmp_path / "float32")), images)
    np.testing.assert_allclose(outputs_of(found.content, images), expected, rtol=1e-4)


def test_images_that_the_run_resized_are_resized_inside(tmp_path):
    """Of 12 x 12 pixels in memory, where the network sees 8 x 8."""
    folder = make_run(tmp_path / "run", description={"stored_size": 12, "center_share": 10 / 12})
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), np.uint8)
    expected = expected_features(load_run(folder), np.asarray(resize(images, 8, 10 / 12)))
    for name in ("x.onnx", "x.stablehlo"):
        export(folder, tmp_path / name)
        found = read_artifact(tmp_path / name)
        assert (found.description.image_shape, found.description.center_share) == ((12, 12, 1), 1.0)
        call = stablehlo_function(found).call if name == "x.stablehlo" else partial(outputs_of, found.content)
        np.testing.assert_allclose(call(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("step", "found"), [("2", 2), ("last", 4)])
def test_the_step_is_chosen(tmp_path, capfd, step, found):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.safetensors"
    assert f"from step {found} of" in run_command(capfd, "export", folder, "--output", path, "--step", step)
    assert description_of_file(path).step == found
    assert bool(read_file(path)["conv1.weight"].any()) == (found == 4)  # that of step 2 has zeros


def test_a_step_that_is_not_there_lists_the_steps(tmp_path, capfd):
    folder = make_run(tmp_path / "run")
    status, printed, said = told(capfd, "export", folder, "--output", tmp_path / "x.onnx", "--step", "3")
    assert (status, printed, said.count("\n")) == (1, "", 1)
    assert "2, 4" in said
    assert "step is 'newest'" in told(capfd, "export", folder, "--output", tmp_path / "x.onnx", "--step", "newest")[2]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_output_is_kept_and_replaced_only_with_overwrite(tmp_path, capfd):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.onnx"
    run_command(capfd, "export", folder, "--output", path, "--step", "2")
    before = path.read_bytes()
    assert "x.onnx already exists and is kept" in told(capfd, "export", folder, "--output", path)[2]
    assert path.read_bytes() == before
    run_command(capfd, "export", folder, "--output", path, "--overwrite")
    assert read_artifact(path).description.step == 4
    assert path.read_bytes() != before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run", "x.onnx", "x.onnx.json"]


def test_an_export_that_fails_leaves_the_old_output(tmp_path, monkeypatch):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.stablehlo"
    export(folder, path)
    before = path.read_bytes(), json_path(path).read_bytes()
    monkeypatch.setattr("gensupcon_jax.weights.artifact.write_new", raising)
    with pytest.raises(UserError, match="the disk is full"):
        export(folder, path, Options(overwrite=True))
    assert (path.read_bytes(), json_path(path).read_bytes()) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run", "x.stablehlo", "x.stablehlo.json"]


def raising(path, content):
    path.write_bytes(b"half")
    raise UserError("the disk is full")


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    folder = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"is a folder with checkpoints, dataset\.json, which is kept even with"):
        export(folder, folder, Options(format="hub", overwrite=True))


def test_a_network_that_timm_lacks_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="timm has no network like resnet_small"):
        export(make_run(tmp_path / "run"), tmp_path / "hub", Options(format="hub"))
    assert not (tmp_path / "hub").exists()


class Lengths(nn.Module):
    """An encoder that needs the number of images as an integer."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(4)(images.reshape(len(images), -1))


@pytest.mark.parametrize("ending", ["onnx", "stablehlo"])
def test_a_network_for_one_batch_size_only_is_one_line(tmp_path, monkeypatch, ending):
    monkeypatch.setitem(ENCODERS, "lengths", lambda settings: Lengths())
    kernel = {"Dense_0": {"kernel": np.ones((64, 4), np.float32), "bias": np.ones(4, np.float32)}}
    folder = make_run(tmp_path / "run", variables={"params": {"backbone": kernel}}, **{"model.name": "lengths"})
    with pytest.raises(UserError, match=r"cannot be traced for any number of images \(.*\); write images.shape\[0\]"):
        export(folder, tmp_path / f"x.{ending}")


def test_onnx_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs the package onnx: pip install "gensupcon_jax\[onnx\]"'):
        export(tmp_path / "run", tmp_path / "x.onnx")


def test_exported_weights_are_loadable_and_have_metadata(tmp_path, capsys):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.safetensors"
    __main__.main(["weights", "export", "--workdir", str(folder), "--output", str(path)])
    assert_same(read_file(path), named_tensors(network()))
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["architecture"] == "resnet_small"
    assert (metadata["stem"], metadata["width"], metadata["step"]) == ("cifar", "4", "4")
    assert json.loads(metadata["image_shape"]) == [8, 8, 1]
    description = description_of_file(path)
    assert description == describe(load_run(folder))
    assert description.mean == tuple(DATASET.description()["mean"])
    assert description.class_names == ("0", "1", "2", "3")
    assert (description.num_features, description.step, description.network) == (16, 4, {"stem": "cifar", "width": 4})
    assert (description.center_share, description.interpolation) == (1.0, "bilinear")
    capsys.readouterr()
    __main__.main(["weights", "show", str(path)])
    shown = capsys.readouterr().out.splitlines()
    assert "timm / torchvision names; backbone, classifier; 47 tensors" in shown[0]
    assert "resnet_small (stem cifar, width 4), step 4, 4 classes; images 8 x 8 x 1, center share 1.0" in shown[1]
    assert any(line.split() == ["fc.weight", "(4,", "16)", "float32"] for line in shown[1:])


def test_the_head_is_exported_on_request(tmp_path):
    folder, path = make_run(tmp_path / "run"), tmp_path / "x.safetensors"
    __main__.main(["weights", "export", "--workdir", str(folder), "--output", str(path), "--head"])
    assert_same(fill(network(seed=1), read_file(path), where="x"), network())


def test_the_platform_of_jax_is_set_before_anything_is_exported(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("gensupcon_jax.cluster.cpu_flags.set_for_this_machine", told.append)
    with pytest.raises(SystemExit):
        __main__.main(
            ["weights", "export", "--workdir", str(tmp_path / "none"), "--output", str(tmp_path / "x.stablehlo")]
        )
    assert told == [os.environ]


def test_files_of_others_have_no_description(tmp_path):
    write_safetensors(
        tmp_path / "other.safetensors", {"fc.bias": np.ones(2, np.float32)}, {"format": "pt", "mean": "[0]"}
    )
    assert description_of_file(tmp_path / "other.safetensors") is None
    assert description_of_file(tmp_path / "other.pth") is None


def test_fingerprints_are_of_the_weights_and_of_the_run(tmp_path):
    folder = make_run(tmp_path / "run")
    first, last = (describe(load_run(folder, step=step)) for step in (2, 4))
    other = describe(load_run(make_run(tmp_path / "other", **{"loss.temperature": 0.2})))
    assert first.run_fingerprint == last.run_fingerprint != other.run_fingerprint
    assert first.fingerprint != last.fingerprint == other.fingerprint
    assert last.fingerprint == weights_fingerprint(
        {kind: {"backbone": parts["backbone"]} for kind, parts in network().items() if "backbone" in parts}
    )


def test_the_center_share_is_that_of_an_evaluation(tmp_path):
    for encoded in (True, False):
        folder = make_run(tmp_path / f"{encoded}", description={"encoded": encoded, "center_share": 0.75})
        assert describe(load_run(folder)).center_share == 0.75
    for encoded, share in ((True, 0.75), (False, 1.0)):  # an older run says the share of encoded images in its config
        folder = make_run(
            tmp_path / f"old_{encoded}", description={"encoded": encoded}, **{"dataset.center_share": 0.75}
        )
        saved = json.loads((folder / "dataset.json").read_text())
        del saved["center_share"]
        (folder / "dataset.json").write_text(json.dumps(saved))
        assert describe(load_run(folder)).center_share == share


def test_a_blurred_network_is_read_as_one(tmp_path):
    folder = make_run(tmp_path / "run", **{"model.blur_pool": True})
    export(folder, tmp_path / "x.safetensors")
    assert description_of_file(tmp_path / "x.safetensors").network["blur_pool"] is True
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    of_run, of_file = (Encoder.load(source).embed(images) for source in (folder, tmp_path / "x.safetensors"))
    np.testing.assert_allclose(of_file, of_run, rtol=1e-5, atol=1e-6)
    plain = make_run(tmp_path / "plain")
    assert "blur_pool" not in describe(load_run(plain)).network
    assert np.abs(Encoder.load(plain).embed(images) - of_run).max() > 1e-4  # the same weights without the blur
