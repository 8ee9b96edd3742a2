"""What `weights show` prints of workdirs, files and exported functions."""

import jax
import numpy as np

from gensupcon_jax.weights.artifact import write_artifact
from gensupcon_jax.weights.files import write_safetensors
from gensupcon_jax.weights.show import show
from tests.store.test_saved_runs import make_run
from tests.weights.test_artifact import DESCRIPTION, a_function


def test_a_workdir_is_shown_at_the_step_that_is_asked_for(tmp_path):
    folder = make_run(tmp_path / "run")
    lines = show(folder).splitlines()
    assert lines[0] == f"{folder}, step 4: resnet_small, objective contrastive"
    assert lines[1] == f"{folder}: timm / torchvision names; backbone, head, classifier; 51 tensors, 5,616 numbers"
    assert lines[-1].split() == ["layer3.0.downsample.1.weight", "(16,)", "float32"]
    assert show(folder, step=2).splitlines()[0] == f"{folder}, step 2: resnet_small, objective contrastive"


def test_an_artifact_says_its_date_its_version_and_how_long_it_is_readable(tmp_path):
    path = a_function(tmp_path)
    first, second, third, fourth = show(path).splitlines()
    assert first == f"{path}: jax.export artifact for cpu: uint8 [batch, 2, 2, 1] -> float32 [batch, 3]"
    assert second == (
        "  resnet_small (stem cifar, width 4), step 7, 2 classes; images 2 x 2 x 1, center share 0.875, mean 0.5, std 0.25"
    )
    assert third.startswith("  made on 2") and f" with jax {jax.__version__}; jax promises that versions " in third
    assert "6 months after it, or up to 3 weeks before it" in third
    assert len(fourth.removeprefix("  SHA-256 ")) == 64


def test_an_onnx_model_is_shown_without_the_package(tmp_path):
    write_artifact(tmp_path / "x.onnx", b"content", DESCRIPTION, {"onnx": "1.23.2", "opset": 17, "ir_version": 8})
    lines = show(tmp_path / "x.onnx").splitlines()
    assert lines[0] == f"{tmp_path / 'x.onnx'}: ONNX model: uint8 [batch, 2, 2, 1] -> float32 [batch, 3]"
    assert lines[2].endswith(" with onnx 1.23.2, opset 17")


def test_a_file_says_how_its_images_are_prepared_and_a_folder_for_timm_is_its_file(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"fc.bias": np.ones(2, np.float32)}, DESCRIPTION.as_metadata())
    assert show(path).splitlines() == [
        f"{path}: head or classifier alone names; classifier; 1 tensors, 2 numbers",
        "  resnet_small (stem cifar, width 4), step 7, 2 classes; images 2 x 2 x 1, center share 0.875, mean 0.5, std 0.25",
        "  fc.bias  (2,)  float32",
    ]
    assert show(tmp_path) == show(path)
    of_values = DESCRIPTION._replace(label_kind="value")
    write_safetensors(
        other := tmp_path / "values.safetensors", {"fc.bias": np.ones(2, np.float32)}, of_values.as_metadata()
    )
    assert "step 7, 2 bins of values; images" in show(other)
