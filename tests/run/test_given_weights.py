"""What a run takes from the weights it starts from: the step, mean and std, channels; each choice is said and recorded."""

import json

import jax
import numpy as np
import pytest

from gensupcon_jax.data.channels import converted
from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.run import loop, record, train
from gensupcon_jax.run.run import build_run
from gensupcon_jax.store import checkpoint
from gensupcon_jax.store.saved_runs import read_run
from gensupcon_jax.weights.files import write_safetensors
from gensupcon_jax.weights.initial import open_weights
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import named_tensors
from tests.tiny import tiny_config, tiny_dataset

pytestmark = pytest.mark.slow  # whole runs

DEVICE = jax.devices()[:1]
FIRST = tiny_dataset()
STEPS = {"evaluate.every_steps": 3, "checkpoint.every_steps": 1, "checkpoint.keep": 3, "evaluate.linear_probe": False}
PROBE = {"objective": "linear_probe", "augment.num_views": 1, "steps": 2}


def brighter(channels=1, change=90):
    """Other training images, which are brighter and have less contrast; the same test images."""
    data = tiny_dataset(channels=channels, seed=5)
    images = (data.train.images // 2 + change).astype(np.uint8)
    splits = {name: (getattr(data, name).images, getattr(data, name).classes) for name in ("validation", "test")}
    splits["test"] = (tiny_dataset(channels=channels).test.images, tiny_dataset().test.classes)
    return from_arrays(images, data.train.classes, **splits)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of 6 steps whose best step is the third."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patched:
        real = record.best_so_far
        patched.setattr(loop, "best_so_far", lambda best, row, step: real(best, row | {"knn/top1": 100.0 - step}, step))
        train.train_and_evaluate(tiny_config(**STEPS), folder, FIRST, devices=DEVICE)
    return folder


def built(folder, dataset, **changes):
    return build_run(tiny_config(**changes), folder, dataset, devices=DEVICE)


def features_of(run, state, images):
    predict_fn = run.predict_fn(state)
    settings = run.evaluation_settings().extraction
    return extract(lambda batch: predict_fn(batch).features, images, **settings)


def own_features(folder, step):
    """Of the first run's test images, as its own evaluation computes them with the network of a step."""
    run = built(folder, FIRST, **STEPS)
    saved = checkpoint.read_step(folder / "checkpoints", ("params", "batch_stats"), step)
    return features_of(run, run.initial_state().replace(**saved.fields), FIRST.test)


@pytest.mark.parametrize(("weights_step", "step"), [(None, 6), ("last", 6), ("best", 3), (4, 4)])
def test_a_probe_on_other_data_has_the_features_of_the_first_runs_own_evaluation(first, tmp_path, weights_step, step):
    other = brighter()
    assert abs(other.description()["mean"][0] - FIRST.description()["mean"][0]) > 0.1
    run = built(tmp_path, other, **PROBE, **{"model.weights": str(first), "model.weights_step": weights_step})
    assert (run.given.step, run.description()["weights_step"]) == (step, step)
    found = features_of(run, run.initial_state(), other.test)
    np.testing.assert_allclose(found, own_features(first, step), atol=1e-5)


def test_initial_weights_bring_their_mean_and_std_which_are_recorded_and_said(first, tmp_path, capsys):
    changes = {"model.weights": str(first), "steps": 0, "evaluate.linear_probe": False}
    results = train.train_and_evaluate(tiny_config(**changes), tmp_path, brighter(), devices=DEVICE)
    saved = json.loads((tmp_path / "dataset.json").read_text())
    assert saved["mean"] == FIRST.description()["mean"]
    assert saved["std"] == FIRST.description()["std"]
    assert saved["normalization"] == f"those of the encoder in {first}"
    assert saved["weights_step"] == 6
    mean, std = saved["mean"][0], saved["std"][0]
    line = f"images are normalized with mean ({mean:.4g}) and std ({std:.4g}): those of the encoder in {first}\n"
    assert line in capsys.readouterr().err
    # The same call resumes with the same values; a workdir in which others are recorded is refused.
    assert train.train_and_evaluate(tiny_config(**changes), tmp_path, brighter(), devices=DEVICE) == results
    (tmp_path / "dataset.json").write_text(json.dumps(saved | {"mean": [0.5]}))
    with pytest.raises(UserError, match=r"different data: mean \(\[0.5\] there, "):
        train.train_and_evaluate(tiny_config(**changes), tmp_path, brighter(), devices=DEVICE)


def test_given_mean_and_std_come_first(first, tmp_path):
    given = {"model.mean": (0.25,), "model.std": (0.5,)}
    for weights in ({}, {"model.weights": str(first)}):
        run = built(tmp_path, FIRST, **weights, **given)
        assert (run.data.mean.tolist(), run.data.std.tolist()) == ([0.25], [0.5])
        assert run.source_notes == ("images are normalized with mean (0.25) and std (0.5): model.mean and model.std",)
    with pytest.raises(UserError, match=r"model.std is \(0.0,\); allowed: 1 or 1 numbers above 0"):
        built(tmp_path, FIRST, **{"model.mean": (0.25,), "model.std": (0.0,)})
    with pytest.raises(UserError, match=r"model.mean is \(0.1, 0.2, 0.3\); allowed: 1 or 1 numbers"):
        built(tmp_path, FIRST, **{"model.mean": (0.1, 0.2, 0.3), "model.std": (1, 1, 1)})
    with pytest.raises(UserError, match=r"model.std is None; allowed with model.mean \(0.25,\): numbers"):
        built(tmp_path, FIRST, **{"model.mean": (0.25,)})


def test_without_weights_nothing_is_said_and_the_datas_own_are_used(tmp_path):
    run = built(tmp_path, FIRST)
    assert run.source_notes == ()
    assert run.description()["mean"] == FIRST.description()["mean"]
    assert run.description()["normalization"] == "those of the training images"


def test_a_step_that_is_not_there_lists_those_that_are(first, tmp_path):
    with pytest.raises(UserError, match=r"model.weights: .*no checkpoint of step 77; .*3 \(best\), 4, 5, 6"):
        built(tmp_path, FIRST, **{"model.weights": str(first), "model.weights_step": 77})
    with pytest.raises(UserError, match=r"model.weights_step is 'best'; allowed without model.weights: None"):
        built(tmp_path, FIRST, **{"model.weights_step": "best"})
    with pytest.raises(UserError, match=r"teacher.weights_step is 3; allowed with teacher.kind none: None"):
        built(tmp_path, FIRST, **{"teacher.weights_step": 3})
    with pytest.raises(UserError, match=r"model.weights_step is 'first'; allowed: last, best, or the number"):
        built(tmp_path, FIRST, **{"model.weights": str(first), "model.weights_step": "first"})


def test_a_probe_of_the_best_step_is_read_with_the_best_encoder(first, tmp_path):
    changes = {**PROBE, "model.weights": str(first), "model.weights_step": "best", "evaluate.every_steps": 1}
    changes |= {"checkpoint.every_steps": 1, "evaluate.linear_probe": False}
    results = train.train_and_evaluate(tiny_config(**changes), tmp_path, brighter(), devices=DEVICE)
    assert results["best"]["knn_top1"] == results["knn_top1"]  # of a frozen encoder, at every step
    best = read_run(first, step="best")
    jax.tree.map(
        np.testing.assert_array_equal,
        load_run(tmp_path, need="classifier").variables["params"]["backbone"],
        best.variables["params"]["backbone"],
    )
    assert load_run(tmp_path).description["mean"] == FIRST.description()["mean"]


# Files


@pytest.fixture(scope="module")
def color_file(tmp_path_factory):
    """A ResNet of 3 channels with timm's names, which says nothing of its mean and std."""
    run = build_run(tiny_config(), tmp_path_factory.mktemp("color"), tiny_dataset(channels=3), devices=DEVICE)
    state = run.initial_state()
    path = tmp_path_factory.mktemp("files") / "net.safetensors"
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    write_safetensors(path, named_tensors(jax.device_get(variables), parts=("backbone",)), {})
    return path


def test_a_file_of_timms_names_is_assumed_to_have_its_mean_and_std(color_file, tmp_path):
    run = built(tmp_path, tiny_dataset(channels=3), **{"model.weights": str(color_file)})
    assert run.data.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert run.data.std.tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert run.source_notes == (
        "images are normalized with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225): timm's and torchvision's for "
        f"ImageNet, assumed because {color_file} does not say its own; model.mean and model.std set others",
    )
    with pytest.raises(UserError, match=r"a file holds one step; set model.weights_step to None"):
        built(tmp_path, tiny_dataset(channels=3), **{"model.weights": str(color_file), "model.weights_step": "best"})


def test_timms_config_beside_a_file_says_its_mean_and_std(color_file, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(color_file.read_bytes())
    own = {"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    run = built(tmp_path / "run", tiny_dataset(channels=3), **{"model.weights": str(path)})
    assert (run.data.mean.tolist(), run.data.std.tolist()) == (pytest.approx([0.5, 0.4, 0.3]), [0.5, 0.25, 0.5])
    assert run.description()["normalization"] == f"those that {tmp_path / 'config.json'} says"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"model.weights: .*config.json cannot be read .*; repair or remove it"):
        built(tmp_path / "run", tiny_dataset(channels=3), **{"model.weights": str(path)})


def test_a_file_of_ours_says_its_mean_and_std(first, tmp_path):
    from gensupcon_jax.weights.export import export

    export(first, tmp_path / "first.safetensors")
    run = built(tmp_path / "run", brighter(), **{"model.weights": str(tmp_path / "first.safetensors")})
    assert run.description()["mean"] == FIRST.description()["mean"]
    assert run.description()["normalization"] == f"those that {tmp_path / 'first.safetensors'} says"


def test_a_gray_file_that_says_nothing_gets_those_of_the_data(first, tmp_path):
    path = tmp_path / "gray.safetensors"
    write_safetensors(path, named_tensors(load_run(first).variables, parts=("backbone",)), {})
    run = built(tmp_path / "run", brighter(), **{"model.weights": str(path)})
    assert run.description()["mean"] == brighter().description()["mean"]
    assert run.source_notes[0].endswith(
        f": those of the training images, assumed because {path} does not say its own; model.mean and model.std set others"
    )


# Channels


def test_weights_of_color_images_work_on_gray_ones_with_a_sentence(color_file, tmp_path, capsys):
    changes = {"model.weights": str(color_file), "steps": 0, "evaluate.linear_probe": False}
    train.train_and_evaluate(tiny_config(**changes), tmp_path, FIRST, devices=DEVICE)
    said = f"gray images are repeated in 3 channels (dataset.channels=3), as the encoder in {color_file} takes 3\n"
    assert said in capsys.readouterr().err
    assert json.loads((tmp_path / "config.json").read_text())["dataset"]["channels"] == 3
    assert json.loads((tmp_path / "dataset.json").read_text())["image_shape"] == [8, 8, 3]
    run = built(tmp_path, FIRST, **changes)
    np.testing.assert_array_equal(run.dataset.train.images, np.repeat(FIRST.train.images, 3, axis=3))
    np.testing.assert_array_equal(run.dataset.train.labels, FIRST.train.labels)


def test_other_channels_are_refused_with_the_field_to_set(first, color_file, tmp_path):
    color = tiny_dataset(channels=3)
    with pytest.raises(UserError) as error:
        built(tmp_path, color, **{"model.weights": str(first)})
    assert str(error.value) == (
        f"model.weights: the encoder in {first} takes images of 1 channel(s), those of arrays have 3 (dataset.channels is None); "
        "set dataset.channels=1, which makes color images gray, or choose another encoder"
    )
    with pytest.raises(
        UserError, match=r"set dataset.channels=3, which repeats gray images, or choose another encoder"
    ):
        built(tmp_path, FIRST, **{"model.weights": str(color_file), "dataset.channels": 1})
    run = built(tmp_path, color, **{"model.weights": str(first), "dataset.channels": 1})
    assert run.data.num_channels == 1
    assert open_weights(str(first)).num_channels == 1


def test_the_order_of_the_batches_does_not_depend_on_the_channels(tmp_path):
    color = tiny_dataset(channels=3)
    runs = [built(tmp_path, color, **{"dataset.channels": channels}) for channels in (None, 1)]
    for batch, gray in zip(
        *(run.batches(2, 5) for run in runs), strict=True
    ):  # from a resumed step, over an epoch's end
        np.testing.assert_array_equal(gray.images, converted(np.asarray(batch.images), 1))
        np.testing.assert_array_equal(gray.labels, batch.labels)
