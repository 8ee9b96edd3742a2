"""A signal during an evaluation between two steps: the step is saved, and its evaluation is done when the run resumes."""

import json
import signal

import jax
import pytest

from gensupcon_jax.errors import RunStopped
from gensupcon_jax.run import loop, train
from tests.run.test_train import bits_of, rows_of
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]
CHANGES = {
    "steps": 5,
    "evaluate.every_epochs": 0,
    "evaluate.every_steps": 2,
    "checkpoint.every_steps": 3,
    "log_steps": 3,
}
QUICK = train.Launch(writes_report=False)


def trained(folder):
    """Evaluated after the steps 2, 4 and 5; those after 3 and 5 are saved and logged."""
    return train.train_and_evaluate(tiny_config(**CHANGES), folder, tiny_dataset(), devices=DEVICE, launch=QUICK)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "untouched"
    trained(folder)
    return folder


def record_of(folder, step):
    return json.loads((folder / "checkpoints" / str(step) / "record" / "metadata").read_text())


def stops_at(monkeypatch, steps, number=signal.SIGTERM):
    """The evaluation of these steps gets a signal, once each."""
    real, left = loop.validate, list(steps)

    def validate(run, state):
        if int(state.step) in left:
            left.remove(int(state.step))
            signal.raise_signal(number)
            raise AssertionError("it was not ended")
        return real(run, state)

    monkeypatch.setattr(loop, "validate", validate)


@pytest.mark.parametrize(("step", "number"), [(2, signal.SIGTERM), (5, signal.SIGINT)])
def test_the_step_is_saved_and_evaluated_at_the_resumption(untouched, tmp_path, monkeypatch, step, number):
    stops_at(monkeypatch, [step], number)
    with pytest.raises(RunStopped, match=rf"^{number.name}: saved step {step} of 5; the same command resumes"):
        trained(tmp_path)
    assert record_of(tmp_path, step)["unevaluated"].keys() >= ({"train/loss"} if step == 5 else set())
    assert step not in [row["step"] for row in rows_of(tmp_path)]
    trained(tmp_path)
    check_same(tmp_path, untouched)
    assert "unevaluated" not in record_of(tmp_path, step)


def check_same(folder, untouched):
    assert without_times(rows_of(folder)) == without_times(rows_of(untouched))
    ours, theirs = (json.loads((each / "results.json").read_text()) for each in (folder, untouched))
    assert {name: ours[name] for name in ours if name != "time" and not name.endswith("seconds")} == {
        name: theirs[name] for name in theirs if name != "time" and not name.endswith("seconds")
    }
    assert bits_of(folder, 5) == bits_of(untouched, 5)
    assert record_of(folder, 5)["best"] == record_of(untouched, 5)["best"]


@pytest.mark.slow
def test_a_signal_or_a_kill_at_the_resumption_loses_nothing(untouched, tmp_path, monkeypatch):
    stops_at(monkeypatch, [4, 4])
    with pytest.raises(RunStopped, match="saved step 4 of 5"):
        trained(tmp_path)
    with pytest.raises(RunStopped, match="nothing is lost; the same command resumes"):
        trained(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(loop.Checkpoints, "replace_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path)
    assert rows_of(tmp_path)[-1]["step"] == 4  # it is written, and will be written again
    trained(tmp_path)
    check_same(tmp_path, untouched)


@pytest.mark.slow
def test_a_signal_before_the_evaluation_leaves_it_out(untouched, tmp_path, monkeypatch):
    real, real_validate, advanced = loop.TrainingLog.advance, loop.validate, []

    def advance(log):
        real(log)
        advanced.append(log)
        if len(advanced) == 5:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as stopped:
        stopped.setattr(loop.TrainingLog, "advance", advance)
        stopped.setattr(
            loop, "validate", lambda run, state: real_validate(run, state) if state.step < 5 else pytest.fail()
        )
        with pytest.raises(RunStopped, match="saved step 5 of 5"):
            trained(tmp_path)
    trained(tmp_path)
    check_same(tmp_path, untouched)
