"""Sources of an encoder: files of weights, ours and those of other programs, and what cannot be used."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.models import build_backbone
from gensupcon_jax.paths import as_path
from gensupcon_jax.weights.architectures import recognize_architecture
from gensupcon_jax.weights.export import export
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.variables import named_tensors
from tests.store.test_saved_runs import make_run
from tests.tiny import tiny_dataset

IMAGES = tiny_dataset().test.images
STATISTICS = {"image_size": 8, "mean": 0.3, "std": 0.2}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "encoder.safetensors"
    export(as_path(trained), path)
    return path


def foreign(exported, path, rename=str):
    """The same tensors without our metadata, as another program writes them."""
    safetensors.numpy.save_file({rename(name): value for name, value in read_file(exported).items()}, path)
    return path


def test_an_exported_file_is_the_run(trained, exported):
    run, file = Encoder.load(trained), Encoder.load(exported)
    np.testing.assert_allclose(file.embed(IMAGES), run.embed(IMAGES), atol=1e-6)
    for name in ("step", "image_shape", "class_names", "center_share", "fingerprint", "num_features"):
        assert getattr(file, name) == getattr(run, name), name
    assert file.notes == ()
    assert file.mean.tolist() == run.mean.tolist()
    assert file.std.tolist() == run.std.tolist()


def test_the_architecture_of_another_programs_file_is_recognized(trained, exported, tmp_path):
    path = foreign(exported, tmp_path / "net.safetensors")
    run = Encoder.load(trained)
    found = Encoder.load(path, image_size=8, mean=run.mean, std=run.std, center_share=1.0)
    np.testing.assert_allclose(found.embed(IMAGES), run.embed(IMAGES), atol=1e-6)
    assert (found.class_names, found.step, found.fingerprint) == ((), None, run.fingerprint)


def test_supcontrasts_names_are_read(exported, trained, tmp_path):
    path = foreign(exported, tmp_path / "net.safetensors", "encoder.module.{}".format)
    run = Encoder.load(trained)
    found = Encoder.load(path, image_size=8, mean=run.mean, std=run.std)
    np.testing.assert_allclose(found.embed(IMAGES), run.embed(IMAGES), atol=1e-6)


def test_what_a_file_does_not_say_is_assumed_as_timm_does_and_said(tmp_path, capsys):
    path = tmp_path / "color.safetensors"
    safetensors.numpy.save_file(resnet_tensors(kernel=7), path)
    encoder = Encoder.load(path)
    assert (encoder.image_shape, encoder.center_share) == ((224, 224, 3), 0.875)
    np.testing.assert_allclose(encoder.mean, [0.485, 0.456, 0.406])
    np.testing.assert_allclose(encoder.std, [0.229, 0.224, 0.225])
    said = capsys.readouterr().err
    assert f"note: {path} does not say its image size: 224 x 224 pixels are assumed" in said
    assert f"note: {path} does not say its mean and std: timm's are assumed" in said
    assert len(encoder.notes) == 2


def test_timms_config_beside_the_weights_says_the_rest(tmp_path, capsys):
    safetensors.numpy.save_file(resnet_tensors(kernel=3, num_classes=2), tmp_path / "model.safetensors")
    own = {"input_size": [3, 16, 16], "crop_pct": 0.9, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": own, "label_names": ["ash", "birch"]}))
    encoder = Encoder.load(tmp_path)  # the folder, as timm's local-dir
    assert (encoder.image_shape, encoder.center_share, encoder.class_names) == ((16, 16, 3), 0.9, ("ash", "birch"))
    assert (encoder.mean.tolist(), encoder.std.tolist()) == ([0.5] * 3, [0.25] * 3)
    assert capsys.readouterr().err == ""
    found = encoder.predict(np.zeros((3, 16, 16, 3), np.uint8))
    assert (found.predictor, found.probabilities.shape) == ("classifier", (3, 2))


def resnet_tensors(kernel, num_classes=0, channels=3, width=4):
    """A resnet_small in timm's names: one basic block in each of three stages."""
    rng = np.random.default_rng(0)
    tensors = {"conv1.weight": rng.standard_normal((width, channels, kernel, kernel))}
    norms = {"bn1": width}
    for stage in (1, 2, 3):
        inputs, outputs = (width if stage == 1 else width * 2 ** (stage - 2)), width * 2 ** (stage - 1)
        block = f"layer{stage}.0"
        tensors[f"{block}.conv1.weight"] = rng.standard_normal((outputs, inputs, 3, 3))
        tensors[f"{block}.conv2.weight"] = rng.standard_normal((outputs, outputs, 3, 3))
        norms |= {f"{block}.bn1": outputs, f"{block}.bn2": outputs}
        if stage > 1:
            tensors[f"{block}.downsample.0.weight"] = rng.standard_normal((outputs, inputs, 1, 1))
            norms[f"{block}.downsample.1"] = outputs
    for name, size in norms.items():
        tensors |= {f"{name}.{leaf}": np.ones(size) for leaf in ("weight", "running_var")}
        tensors |= {f"{name}.{leaf}": np.zeros(size) for leaf in ("bias", "running_mean")}
    if num_classes:
        tensors |= {"fc.weight": rng.standard_normal((num_classes, 4 * width)), "fc.bias": np.zeros(num_classes)}
    return {name: value.astype(np.float32) for name, value in tensors.items()}


# Bad input


def error_of(source, **settings):
    with pytest.raises(UserError) as error:
        Encoder.load(source, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_source_is_one_line(tmp_path, trained):
    assert "none does not exist; allowed: the workdir of a run, a file of weights" in error_of(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    assert "a.txt is not a source of an encoder; allowed: the workdir" in error_of(tmp_path / "a.txt")
    assert "contains no config.json: it is not the workdir of a run" in error_of(tmp_path)
    untrained = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert "contains no checkpoint; train it first" in error_of(untrained)


def test_a_file_without_statistics_names_the_arguments(exported, tmp_path):
    path = foreign(exported, tmp_path / "net.safetensors")
    assert "1 channels) does not say the mean and std of its images; give them, as in mean=" in error_of(path)


def test_wrong_arguments_are_one_line(trained, exported, tmp_path):
    path = foreign(exported, tmp_path / "net.safetensors")
    assert "size is not known of a source; allowed: architecture, image_size," in error_of(path, size=8)
    assert "image_size is 0; allowed: a whole number" in error_of(path, **STATISTICS | {"image_size": 0})
    assert "center_share is 2; allowed: a number above 0" in error_of(path, center_share=2, **STATISTICS)
    assert "std is 0; allowed: 1 numbers above 0" in error_of(path, **STATISTICS | {"std": 0})
    assert "step is 3, and" in error_of(path, step=3, **STATISTICS)
    assert "says its own mean; leave out mean" in error_of(trained, mean=0.5)
    assert "model.name is 'resnet19'; allowed: resnet_small" in error_of(path, architecture="resnet19", **STATISTICS)


def test_networks_that_are_not_ours_are_one_line(tmp_path):
    path = tmp_path / "net.safetensors"
    tensors = resnet_tensors(kernel=3)
    safetensors.numpy.save_file(tensors | {"layer1.1.conv1.weight": np.zeros((4, 4, 3, 3), np.float32)}, path)
    assert "is a ResNet with 2, 1, 1 basic blocks; allowed: resnet_small, resnet18" in error_of(path)
    wide = {"patch_embed.proj.weight": np.zeros((320, 3, 16, 16), np.float32), "blocks.0.norm1.bias": np.zeros(320)}
    safetensors.numpy.save_file(wide, path)
    assert "width 320 with 1 blocks and patches of 16 pixels, whose number of heads is not in the file" in error_of(
        path
    )
    safetensors.numpy.save_file({"fc.weight": np.zeros((2, 4), np.float32), "fc.bias": np.zeros(2, np.float32)}, path)
    assert "contains no encoder" in error_of(path)


# Architectures


def vit_tensors(width, depth=12, patch_size=4, num_patches=16):
    """Names and shapes of timm's vision transformer that its architecture is read off."""
    blocks = {f"blocks.{block}.norm1.bias": np.zeros(width) for block in range(depth)}
    return blocks | {
        "cls_token": np.zeros((1, 1, width)),
        "pos_embed": np.zeros((1, 1 + num_patches, width)),
        "patch_embed.proj.weight": np.zeros((width, 3, patch_size, patch_size)),
    }


@pytest.mark.parametrize(
    ("width", "patch_size", "name"),
    [(192, 4, "vit_tiny_patch4"), (384, 16, "vit_small_patch16"), (768, 8, "vit_base_patch8")],
)
def test_vision_transformers_are_recognized_by_width_and_patches(width, patch_size, name):
    found = recognize_architecture(vit_tensors(width, patch_size=patch_size), where="file")
    assert found == ({"name": name, "width": width, "pool": "class"}, 4 * patch_size, 3)
    averaged = vit_tensors(width, patch_size=patch_size) | {"fc_norm.weight": np.zeros(width)}
    assert recognize_architecture(averaged, where="file").fields["pool"] == "average"


@pytest.mark.parametrize("name", ["resnet_small", "resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_every_resnet_of_ours_is_recognized(name, stem):
    backbone = build_backbone(name=name, image_size=32, stem=stem, width=8)
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False))
    variables = {kind: {"backbone": shapes[kind]} for kind in ("params", "batch_stats")}
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables)
    found = recognize_architecture(named_tensors(zeros), where="file")
    assert found == ({"name": name, "stem": stem, "width": 8}, None, 1)


def test_a_vision_transformer_is_read_from_timms_names(tmp_path):
    backbone = build_backbone(name="vit_tiny_patch4", image_size=8, width=12)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    variables = {
        "params": {"backbone": backbone.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)["params"]}
    }
    safetensors.numpy.save_file(named_tensors(variables), tmp_path / "vit.safetensors")
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    encoder = Encoder.load(tmp_path / "vit.safetensors", architecture="vit_tiny_patch4", **statistics)
    assert encoder.image_shape == (8, 8, 3)  # as many positions as it has embeddings for
    network = {"params": variables["params"]["backbone"]}
    expected = backbone.apply(network, (jnp.asarray(images) / 255 - 0.5) / 0.5, train=False)
    np.testing.assert_allclose(encoder.embed(images), expected, atol=1e-5)


# Artifacts


@pytest.fixture(scope="module")
def artifact(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "encoder.stablehlo"
    export(as_path(trained), path)
    return path


@pytest.mark.parametrize("num_devices", [1, 8])
def test_an_artifact_is_the_run(trained, artifact, num_devices):
    run, file = Encoder.load(trained), Encoder.load(artifact, devices=jax.devices()[:num_devices])
    np.testing.assert_allclose(file.embed(IMAGES, batch_size=10), run.embed(IMAGES), atol=1e-5)
    for name in ("step", "image_shape", "class_names", "center_share", "fingerprint", "num_features"):
        assert getattr(file, name) == getattr(run, name), name
    with pytest.raises(UserError, match="has no classifier, so it predicts no classes; allowed: the workdir"):
        file.predict(IMAGES)


def test_artifacts_that_cannot_be_used_are_one_line(artifact, tmp_path):
    for name in (artifact.name, f"{artifact.name}.json"):
        shutil.copy(artifact.parent / name, tmp_path / name)
    path = tmp_path / artifact.name
    assert "says its own mean; leave out mean" in error_of(path, mean=0.5)
    assert "which holds one step only" in error_of(path, step="best")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged: its" in error_of(path)
    (tmp_path / f"{artifact.name}.json").unlink()
    assert "is missing: it has the checksum" in error_of(path)
    assert "other.stablehlo does not exist" in error_of(tmp_path / "other.stablehlo")


# Labels that are numbers


BINS = {"low": 0.0, "high": 8.0, "num_bins": 4, "width": 1.0}


@pytest.fixture
def run_of_values(tmp_path):
    """A workdir whose classifier has a logit for each bin of values."""
    return make_run(tmp_path / "run", description={"label_kind": "value", "bins": BINS})


def test_an_exported_classifier_of_bins_predicts_the_numbers_of_its_run(run_of_values, tmp_path):
    export(as_path(run_of_values), tmp_path / "x.safetensors")
    export(as_path(run_of_values), tmp_path / "x.stablehlo")
    run, file, function = map(Encoder.load, (run_of_values, tmp_path / "x.safetensors", tmp_path / "x.stablehlo"))
    expected, found = run.predict(IMAGES), file.predict(IMAGES)
    assert (found.predictor, found.label_kind) == ("classifier", "value")
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
    assert np.all((found.values > 0) & (found.values < 8))
    for encoder in (run, file, function):
        assert repr(encoder).endswith("features, 4 bins of values)")
    with pytest.raises(UserError, match="has no classifier, so it predicts no values; allowed: the workdir of a run"):
        function.predict(IMAGES)


def test_a_file_that_does_not_say_its_bins_predicts_no_numbers(run_of_values, tmp_path):
    """As files were before."""
    export(as_path(run_of_values), path := tmp_path / "x.safetensors")
    with safetensors.safe_open(path, framework="numpy") as tensors:
        metadata = {name: text for name, text in tensors.metadata().items() if name != "bins"}
    safetensors.numpy.save_file(read_file(path), tmp_path / "old.safetensors", metadata)
    with pytest.raises(UserError, match=r"old\.safetensors does not say the bins of its values; export the run again"):
        Encoder.load(tmp_path / "old.safetensors").predict(IMAGES)
