"""An encoder from outside the package: an entry in the table, and everything works that works for a ResNet.

It has no BatchNorm (no "batch_stats"), no stages and no stem, and it draws from the stream "dropout" while it trains.
"""

import shutil

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import ENCODERS, Classifier, build_backbone
from gensupcon_jax.plan import compare, figures, known
from gensupcon_jax.run import train
from gensupcon_jax.store import workdir
from gensupcon_jax.store.saved_runs import run_backbone
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights import teachers
from gensupcon_jax.weights.export import Options, export
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.show import show
from tests.run.test_train import rows_of
from tests.store.test_saved_runs import assert_same
from tests.tiny import tiny_config, tiny_dataset

DATASET = tiny_dataset()
DEVICES = jax.devices()[:2]
SIZES = known.DataSizes(image_size=8, num_channels=1, num_classes=4, num_images=96)
OUTSIDE = {"model.name": "flat", "model.width": 16, "steps": 4}
MOMENTUM = {"loss.mode": "momentum", "momentum_encoder.queue_size": 64}
PRETRAINING = MOMENTUM | {"classifier.beside": True}


class Flat(nn.Module):
    """A dense layer on the pixels, LayerNorm, dropout."""

    width: int
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.Dense(self.width)(images.reshape(images.shape[0], -1))
        return nn.Dropout(self.dropout, deterministic=not train)(nn.LayerNorm()(features))


class Counting(nn.Module):
    """Keeps something in a collection of its own."""

    @nn.compact
    def __call__(self, images, *, train):
        self.variable("counts", "calls", jnp.zeros, ())
        return nn.Dense(4)(images.reshape(images.shape[0], -1))


@pytest.fixture(autouse=True)
def outside_encoder(monkeypatch):
    monkeypatch.setitem(ENCODERS, "flat", lambda settings: Flat(settings.width or 8))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seam") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "flat", lambda settings: Flat(settings.width or 8))
        return folder, run(folder, **PRETRAINING)


def run(folder, **changes):
    return train.train_and_evaluate(tiny_config(**OUTSIDE | changes), folder, DATASET, devices=DEVICES)


def test_it_is_built_by_its_builder():
    assert build_backbone(name="flat", image_size=8, width=5) == Flat(5)


def test_it_trains_with_momentum_and_queue(pretrained):
    folder, results = pretrained
    assert results["steps"] == 4 and results["skipped_steps"] == 0
    assert {"knn_top1", "linear_top1", "classifier_top1"} <= set(results)
    run_found = load_run(folder)
    assert run_found.variables["batch_stats"] == {}
    assert set(run_found.variables["params"]["backbone"]) == {"Dense_0", "LayerNorm_0"}
    assert np.isfinite([row["train/loss"] for row in rows_of(folder)]).all()


def test_it_trains_with_cross_entropy(tmp_path):
    results = run(tmp_path, steps=2, **{"objective": "cross_entropy", "augment.num_views": 1})
    assert results["skipped_steps"] == 0


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, pretrained):
    folder = shutil.copytree(pretrained[0], tmp_path / "run")
    (folder / workdir.RESULTS).unlink()
    shutil.rmtree(folder / workdir.CHECKPOINTS / "4")
    assert load_run(folder).step == 3
    run(folder, **PRETRAINING)
    assert_same(load_run(folder).variables, load_run(pretrained[0]).variables)


def test_a_probe_evaluates_it(tmp_path, pretrained):
    probe = {"objective": "linear_probe", "augment.num_views": 1, "mix.kind": "none", "steps": 4}
    results = run(tmp_path, **probe, **{"model.weights": str(pretrained[0])})
    assert (results["knn_top1"], results["linear_top1"]) == (pretrained[1]["knn_top1"], pretrained[1]["linear_top1"])


def test_it_teaches(pretrained):
    description = DATASET.description()
    teacher = teachers.load_teacher(kind="workdir", path=pretrained[0], dataset_description=description)
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 1)).astype(np.float32)
    params = teacher.variables["params"]
    features = Flat(16).apply({"params": params["backbone"]}, images, train=False)
    expected = Classifier(4).apply({"params": params["classifier"]}, features)
    np.testing.assert_allclose(teacher.logits_fn(teacher.variables, images), expected, rtol=1e-5)


def test_its_weights_are_exported_by_our_names_and_start_another_run(tmp_path, pretrained):
    file = tmp_path / "flat.safetensors"
    export(pretrained[0], file, Options(head=True))
    named, params = read_file(file), load_run(pretrained[0]).variables["params"]
    assert set(named) == {
        f"params.{place}"
        for place in (
            "backbone.Dense_0.kernel", "backbone.Dense_0.bias", "backbone.LayerNorm_0.scale", "backbone.LayerNorm_0.bias",
            "head.hidden.kernel", "head.hidden.bias", "head.output.kernel", "head.output.bias",
            "classifier.output.kernel", "classifier.output.bias",
        )
    }  # fmt: skip
    np.testing.assert_array_equal(named["params.backbone.Dense_0.kernel"], params["backbone"]["Dense_0"]["kernel"])
    with safetensors.safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    assert (metadata["architecture"], metadata["width"], "stem" in metadata) == ("flat", "16", False)
    assert "this program's names; backbone, head, classifier; 10 tensors" in show(file)
    results = run(tmp_path / "started", steps=0, **{"model.weights": str(file)})
    assert results["knn_top1"] == pretrained[1]["knn_top1"]


def test_its_features_are_exported_as_a_function(tmp_path, pretrained):
    file = tmp_path / "flat.stablehlo"
    export(pretrained[0], file)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    found = load_run(pretrained[0])
    inputs = normalize(images, np.array(found.description["mean"]), np.array(found.description["std"]))
    expected = run_backbone(found).apply({"params": found.variables["params"]["backbone"]}, inputs, train=False)
    exported = jax.export.deserialize(bytearray(file.read_bytes()))
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-4, atol=1e-5)


def test_its_step_is_planned():
    config = tiny_config(**OUTSIDE | MOMENTUM)
    (plan,) = compare.plan(config, topologies=["gpu:4"], batch_sizes=[32], sizes=SIZES._asdict())  # lowers the step
    assert plan.memory["running statistics"] == 0
    assert plan.memory["EMA"] == plan.memory["parameters"] > 0
    assert plan.flops_per_image > 0
    assert (
        figures.group_of("jit(sharded)/shard_map/jvp(HeadedEncoder)/HeadedEncoder.features/backbone/Dense_0")
        == "backbone"
    )


def test_variables_of_other_kinds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "counting", lambda settings: Counting())
    with pytest.raises(
        UserError, match=r"model\.name: the encoder has variables in 'counts'; allowed: params and batch_stats"
    ):
        run(tmp_path, **{"model.name": "counting"})


def test_an_unknown_name_lists_the_table(tmp_path):
    with pytest.raises(UserError, match=r"model\.name is 'flatt'.*resnet18.*vit_small_patch16.*flat"):
        run(tmp_path, **{"model.name": "flatt"})
