"""evaluate.encoder=ema: evaluation, checkpoints, exports and later stages see the moving average, in every mode."""

import shutil

import jax
import numpy as np
import pytest

from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.run import train
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.summary import summary
from gensupcon_jax.store import checkpoint
from gensupcon_jax.store.averaged import AVERAGED_FIELDS
from gensupcon_jax.weights.runs import load_run
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]
EMA = {
    "evaluate.encoder": "ema", "momentum_encoder.momentum": 0.5,
    "steps": 4, "evaluate.every_steps": 2, "checkpoint.every_steps": 2,
}  # fmt: skip
MODES = {
    "all": {"classifier.beside": True},
    "momentum": {"loss.mode": "momentum", "momentum_encoder.queue_size": 64, "classifier.beside": True},
    "cross_entropy": {"objective": "cross_entropy", "augment.num_views": 1},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_state_has_an_average_only_where_it_is_asked_for(mode, tmp_path):
    def fields(**changes):
        run = build_run(tiny_config(**changes), tmp_path, tiny_dataset(), devices=DEVICE)
        state = jax.eval_shape(run.parts.initial_state_fn, run.key("init"))
        return state, jax.tree.structure(state.params)

    online, _ = fields(**MODES[mode])
    averaged, params = fields(**MODES[mode], **EMA)
    assert (online.ema_params is not None) == (mode == "momentum")
    own = set(averaged.ema_params)
    assert own == {"backbone", "head"} if mode == "momentum" else jax.tree.structure(averaged.ema_params) == params


@pytest.fixture(scope="module", params=MODES)
def ran(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    changes = MODES[request.param] | EMA
    results = train.train_and_evaluate(tiny_config(**changes), folder, tiny_dataset(), devices=DEVICE)
    return request.param, folder, changes, results


def features_of(run, state):
    predict_fn = run.predict_fn(state)
    settings = run.evaluation_settings().extraction
    return extract(lambda images: predict_fn(images).features, run.dataset.test, **settings)


@pytest.mark.slow
def test_what_is_evaluated_is_the_average_of_the_checkpoint(ran):
    _, folder, changes, results = ran
    assert results["encoder"] == "ema"
    assert "of the moving average:" in summary(results, folder)
    fields = checkpoint.read_newest(folder / "checkpoints", AVERAGED_FIELDS).fields
    not_averaged = changes | {"evaluate.encoder": "online"}
    online, averaged = (
        build_run(tiny_config(**each), folder, tiny_dataset(), devices=DEVICE) for each in (not_averaged, changes)
    )
    found = features_of(averaged, averaged.initial_state().replace(**fields))
    trained = {name: fields[name] for name in ("params", "batch_stats")}
    swapped = {"params": trained["params"] | fields["ema_params"], "batch_stats": fields["ema_batch_stats"]}
    of_trained, of_swapped = (
        features_of(online, online.initial_state().replace(**each)) for each in (trained, swapped)
    )
    np.testing.assert_allclose(found, of_swapped, rtol=1e-5, atol=1e-6)
    assert np.abs(found - of_trained).max() > 1e-3
    # Loaded again it is the same network, also for later stages.
    np.testing.assert_allclose(Encoder.load(folder).embed(averaged.dataset.test.images), found, rtol=1e-4, atol=1e-5)
    loaded = load_run(folder).variables
    for name, average in (("params", "ema_params"), ("batch_stats", "ema_batch_stats")):
        jax.tree.map(np.testing.assert_array_equal, loaded[name]["backbone"], fields[average]["backbone"])


@pytest.mark.slow
def test_the_best_step_is_restored_with_its_average(ran):
    _, folder, _, results = ran
    assert Encoder.load(folder, step="best").step == results["best_step"] == results["best"]["step"]


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_average(ran, tmp_path):
    mode, folder, changes, results = ran
    again = tmp_path / mode
    shutil.copytree(folder, again)
    for name in ("results.json", "report.html"):
        (again / name).unlink()
    shutil.rmtree(again / "checkpoints" / "4")
    resumed = train.train_and_evaluate(tiny_config(**changes), again, tiny_dataset(), devices=DEVICE)
    first, second = (checkpoint.read_newest(each / "checkpoints", ("ema_params",)).fields for each in (folder, again))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert resumed["knn_top1"] == results["knn_top1"]
