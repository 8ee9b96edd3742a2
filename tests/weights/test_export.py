"""A run's weights as a file and its features as a portable function, through the command line."""

import json
import os

import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from gensupcon_jax import __main__
from gensupcon_jax.store.saved_runs import run_backbone
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights.description import describe, description_of_file
from gensupcon_jax.weights.files import read_file, write_safetensors
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import fill, named_tensors
from tests.store.test_saved_runs import DATASET, assert_same, make_run, network


def expected_features(run, images):
    images = normalize(images, np.array(run.description["mean"]), np.array(run.description["std"]))
    variables = {name: tree["backbone"] for name, tree in run.variables.items()}
    return run_backbone(run).apply(variables, images, train=False)


def test_the_artifact_returns_the_runs_features_for_any_batch_size(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    path = tmp_path / "out" / "x.stablehlo"
    __main__.main(["weights", "export", "--workdir", str(folder), "--output", str(path)])
    assert "cpu, cuda, tpu" in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    expected = expected_features(load_run(folder), images)
    for count in (1, 5):
        features = exported.call(images[:count])
        assert (features.shape, features.dtype) == ((count, 16), jnp.float32)
        np.testing.assert_allclose(features, expected[:count], rtol=1e-5)
    __main__.main(["weights", "show", str(path)])
    assert "uint8[batch,8,8,1] -> float32[batch,16]" in capsys.readouterr().out


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


def test_the_center_share_is_that_of_an_evaluation(tmp_path):
    encoded = make_run(tmp_path / "encoded", description={"encoded": True}, **{"dataset.center_share": 0.75})
    assert describe(load_run(encoded)).center_share == 0.75
    in_memory = make_run(tmp_path / "in_memory", **{"dataset.center_share": 0.75})
    assert describe(load_run(in_memory)).center_share == 1.0
