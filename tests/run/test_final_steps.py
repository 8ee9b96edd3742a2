"""The final numbers of the last and of the best step: each is that of its own checkpoint, and nothing is computed twice."""

import json
import shutil

import jax
import numpy as np
import pytest

from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.evaluation.kept_probe import read_probe
from gensupcon_jax.evaluation.outcome import top1
from gensupcon_jax.run import final_steps, loop, record, train
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.summary import summary
from gensupcon_jax.store import checkpoint
from tests.tiny import tiny_config, tiny_dataset

pytestmark = pytest.mark.slow  # whole runs

DEVICE = jax.devices()[:1]
HARD = {
    "log_steps": 100, "optimizer.learning_rate": 2.0, "evaluate.neighbors": (1,),
    "evaluate.every_steps": 3, "checkpoint.every_steps": 100, "checkpoint.keep": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run whose best step is its third of six, by a validation score that we choose."""
    folder = tmp_path_factory.mktemp("runs") / "hard"
    with pytest.MonkeyPatch.context() as patched:
        real = record.best_so_far
        patched.setattr(loop, "best_so_far", lambda best, row, step: real(best, row | {"knn/top1": 100.0 - step}, step))
        results = train.train_and_evaluate(tiny_config(**HARD), folder, tiny_dataset(num=288), devices=DEVICE)
    return folder, results


def naive(folder, step):
    """1-NN accuracy by sklearn, and that of the kept probe, on the test images with the network in a step's checkpoint."""
    from sklearn.neighbors import KNeighborsClassifier

    run = build_run(tiny_config(**HARD), folder, tiny_dataset(num=288), devices=DEVICE)
    saved = checkpoint.read_newest(at_step(folder, step), ("params", "batch_stats"))
    assert saved.step == step
    predict_fn = run.predict_fn(run.initial_state().replace(**saved.fields))
    settings = run.evaluation_settings().extraction
    train_features, test_features = (
        extract(lambda images: predict_fn(images).features, split, **settings)
        for split in (run.dataset.train, run.dataset.test)
    )
    nearest = KNeighborsClassifier(1, metric="cosine").fit(train_features, run.dataset.train.classes)
    probe = read_probe(folder, step).probabilities(test_features).argmax(1)
    return top1(nearest.predict(test_features), run.dataset.test.classes), top1(probe, run.dataset.test.classes)


def at_step(folder, step):
    """The checkpoints up to this step, beside the workdir."""
    copied = folder.parent / f"up_to_{step}" / "checkpoints"
    for path in (folder / "checkpoints").iterdir():
        if path.name.isdecimal() and int(path.name) <= step and not (copied / path.name).exists():
            shutil.copytree(path, copied / path.name)
    return copied


def test_last_and_best_differ_and_are_those_of_their_checkpoints(ran):
    folder, results = ran
    best = results["best"]
    assert (results["steps"], results["best_step"], best["step"]) == (6, 3, 3)
    assert set(best) - {"step"} == {
        name for name in results if "top1" in name or "penalty" in name or "neighbors" in name
    }
    for numbers, step in ((results, 6), (best, 3)):
        nearest, probe = naive(folder, step)
        assert numbers["linear_top1"] == probe
        assert numbers["knn_top1"] == pytest.approx(nearest, abs=100 / 64 + 1e-6)  # one tie of rounding
    assert best["raw_pixel_knn_top1"] == results["raw_pixel_knn_top1"]
    assert (best["linear_top1"], best["knn_top1"]) != (results["linear_top1"], results["knn_top1"])
    assert json.loads((folder / "results.json").read_text())["best"] == best


def test_the_last_lines_show_both(ran):
    folder, results = ran
    lines = summary(results, folder).splitlines()
    assert lines[1].split() == ["step", "6", "(last)", "step", "3", "(best", "by", "validation)"]
    assert lines[2].split()[-4:] == [
        f"{results['linear_top1']:.2f}", "%", f"{results['best']['linear_top1']:.2f}", "%",
    ]  # fmt: skip
    alone = summary(results | {"best": results["best"] | {"step": 6}}, folder).splitlines()
    assert alone[1] == f"  linear probe on frozen features   {results['linear_top1']:.2f} %"
    # Of a run by an earlier version, and of one whose best checkpoint is damaged.
    earlier = {name: value for name, value in results.items() if name != "best"}
    assert summary(earlier, folder) == summary(results | {"best": None}, folder) == "\n".join(alone)


def trained_of(folder, config, best_step):
    """The run, and its state and record as after training."""
    run = build_run(config, folder, tiny_dataset(num=288), devices=DEVICE)
    return run, loop.Trained(run.initial_state(), {"best": best_step and {"step": best_step}})


def test_equal_steps_are_evaluated_once_and_a_sentence_says_so(ran, capsys):
    run, trained = trained_of(ran[0], tiny_config(**HARD), 6)
    last = final_steps.evaluate_last(run, trained.state)
    assert final_steps.evaluate_best(run, trained, last) is last
    assert "the best step by validation is the last one, 6: it is not evaluated twice" in capsys.readouterr().err


def test_the_best_network_takes_the_place_of_the_trained_one(ran):
    run, trained = trained_of(ran[0], tiny_config(**HARD), 3)
    given_up = jax.tree.leaves((trained.state.params, trained.state.batch_stats))
    state = final_steps._restored(run, trained.state, 3)
    assert all(leaf.is_deleted() for leaf in given_up)
    for new, old in zip(jax.tree.leaves((state.params, state.batch_stats)), given_up, strict=True):
        assert (new.shape, new.dtype, new.sharding) == (old.shape, old.dtype, old.sharding)
    saved = checkpoint.read_newest(at_step(ran[0], 3), ("params", "batch_stats"))
    jax.tree.map(
        np.testing.assert_array_equal, {"params": state.params, "batch_stats": state.batch_stats}, saved.fields
    )


def test_a_damaged_best_checkpoint_is_said_and_the_last_numbers_stay(ran, capsys, tmp_path):
    shutil.copytree(ran[0] / "checkpoints", tmp_path / "checkpoints")
    metadata = tmp_path / "checkpoints" / "3" / "record" / "metadata"
    metadata.write_text(metadata.read_text().replace('"step": 3', '"step": 4'))
    run, trained = trained_of(tmp_path, tiny_config(**HARD), 3)
    last = final_steps.evaluate_last(run, trained.state)
    best = final_steps.evaluate_best(run, trained, last)
    assert best is None
    assert final_steps.numbers_of_best(best) is None
    assert "warning: the best step, 3, is not evaluated: its checkpoint is damaged (" in capsys.readouterr().err
