"""A finished run that is made longer: what is refused, what stays, and how it goes on."""

import html
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.run import assemble, longer, train
from gensupcon_jax.run.run import build_run
from tests import killing, running
from tests.run.test_train import rows_of
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]
EVERY = {"log_steps": 1, "checkpoint.every_steps": 1}


def config_of(steps, how=None, **changes):
    return tiny_config(steps=steps, **{"optimizer.extension": how} | EVERY | changes)


def trained(folder, *args, **changes):
    return train.train_and_evaluate(config_of(*args, **changes), folder, tiny_dataset(), devices=DEVICE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 4 steps."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    trained(folder, 4)
    return folder


@pytest.fixture
def short(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rates(steps, *extensions, **changes):
    """The learning rate of each step."""
    made = tuple(longer.Extension(*each) for each in extensions)
    config = config_of(steps, **{"optimizer.warmup_epochs": None, "optimizer.warmup_steps": 2} | changes)
    rate_fn = assemble._rate(config, assemble.lengths(config, 3, made))
    return [round(float(rate_fn(step)), 6) for step in range(steps)]


# The rate


def test_before_the_extension_the_rate_is_what_it_was():
    before = rates(6)
    for how in ("constant", "rewarm"):
        assert rates(12, (6, 12, how))[:6] == before
    assert rates(12)[:6] != before


def test_a_constant_rate_is_that_of_the_last_step():
    last = rates(6)[-1]
    assert rates(12, (6, 12, "constant"))[6:] == [last] * 6
    assert (
        rates(9, (6, 9, "constant"), **{"optimizer.schedule_per": "epoch"})[6:]
        == [rates(6, **{"optimizer.schedule_per": "epoch"})[-1]] * 3
    )


def test_a_rewarmed_rate_rises_from_the_last_one_to_the_peak_and_falls_again():
    changes = {"optimizer.learning_rate": 0.1, "optimizer.final_learning_rate": 0.0}
    last = rates(6, **changes)[-1]
    added = rates(12, (6, 12, "rewarm"), **changes)[6:]
    cosine = [0.05 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    np.testing.assert_allclose(added, [last, (last + 0.1) / 2, *cosine], atol=2e-6)


def test_a_run_may_be_made_longer_again():
    both = rates(10, (6, 8, "rewarm"), (8, 10, "constant"))
    assert both[:8] == rates(8, (6, 8, "rewarm"))
    assert both[8:] == [both[7]] * 2


@pytest.mark.parametrize(("how", "expected"), [("constant", [0.8535534] * 3), ("rewarm", [0.5, 0.625, 0.875])])
def test_the_decay_of_the_momentum_encoder_follows_the_rate(how, expected):
    momentum = assemble.objectives.Momentum(0.5, "cosine", total_steps=4, extensions=(longer.Extension(4, 7, how),))
    decays = [float(momentum.at(step)) for step in range(7)]
    np.testing.assert_allclose(decays[:4], [0.5, 0.5732233, 0.75, 0.9267767], atol=1e-6)
    expected = [decays[3]] * 3 if how == "constant" else expected
    np.testing.assert_allclose(decays[4:], expected, atol=1e-6)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (3,),
            "contains a run of 4 steps, and steps=3 makes 3: a run cannot be made shorter; allowed: the same length, more ",
        ),
        (
            (8,),
            "and steps=8 makes 8: how does its learning rate go on? Allowed: --config.optimizer.extension=constant (that ",
        ),
        (
            (4, "constant"),
            "different config fields: optimizer.extension (None there, 'constant' now); choose another --workdir",
        ),
    ],
)
def test_another_length_is_refused_and_changes_nothing(short, arguments, message):
    before = files(short)
    with pytest.raises(UserError) as error:
        trained(short, *arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert files(short) == before


def test_another_seed_is_told_beside_the_length(short):
    with pytest.raises(UserError, match=r"seed \(0 there, 1 now\), steps \(4 there, 8 now\)"):
        trained(short, 8, "constant", seed=1)


def test_a_length_in_another_unit_is_a_length(finished):
    config = config_of(None, "constant", epochs=2.0)
    assert longer.extensions(finished, config, 6, 3) == (longer.Extension(4, 6, "constant"),)


def test_a_run_that_is_not_finished_is_not_made_longer(short):
    (short / "results.json").unlink()
    before = files(short)
    with pytest.raises(
        UserError, match="its learning rate is planned for 4, and it is not finished; allowed: finish it"
    ):
        trained(short, 8, "constant")
    assert files(short) == before


def test_a_run_without_a_step_is_not_made_longer(short):
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"steps": 0}))
    results = json.loads((short / "results.json").read_text())
    (short / "results.json").write_text(json.dumps(results | {"steps": 0}))
    with pytest.raises(UserError, match="a run without a step has no rate that could go on"):
        trained(short, 8, "constant")


# Other fields


def test_fields_that_leave_the_steps_as_they_are_change_in_the_middle_of_a_run(short, capsys):
    """From step 2 on, of 4."""
    whole = without_times(rows_of(short))
    bits = json.loads((short / "checkpoints/4/record/metadata").read_text())["bits"]
    shutil.rmtree(short / "checkpoints/4")
    (short / "results.json").unlink()
    changes = {"log_steps": 2, "checkpoint.keep": 9, "dataset.memory_limit": 99.0, "dataset.input_bound_share": 0.5}
    trained(short, 4, **changes)
    said = capsys.readouterr().err
    assert "resumes at step 3 of 4 steps" in said
    assert "log_steps is 2 from here on; it was 1\n" in said
    assert "checkpoint.keep is 9 from here on; it was 2\n" in said
    assert "log_steps is 2 from here on; it was 1" in (short / "report.html").read_text()
    record = json.loads((short / "checkpoints/4/record/metadata").read_text())
    assert record["bits"] == bits
    assert record["config"]["log_steps"] == 2
    (start,) = record["history"]
    assert start["step"] == 3
    assert start["fields"] == {
        "checkpoint.keep": [2, 9], "dataset.input_bound_share": [0.1, 0.5], "dataset.memory_limit": [2048.0, 99.0],
        "log_steps": [1, 2],
    }  # fmt: skip
    assert without_times(rows_of(short)) == whole  # the last step is logged in any case


# What happens


def test_a_longer_run_goes_on_says_so_and_keeps_the_results_of_the_shorter_one(short, capsys):
    before = {path.name: path.read_bytes() for path in short.iterdir() if path.is_file()}
    results = trained(short, 6, "constant")
    said = capsys.readouterr().err
    sentence = (
        f"the run was finished after 4 steps (1.33333 epochs) and was made longer, to 6 (2 epochs): its learning rate stays that "
        f"of its last step; its former results are in {short / 'results_4'}"
    )
    assert f"{sentence}\n" in said
    assert "steps is 6 from here on; it was 4\n" in said
    assert "resumes at step 4 of 6 steps" in said
    assert sentence in html.unescape((short / "report.html").read_text())
    extension = {"start": 4, "end": 6, "how": "constant"}
    assert (results["steps"], results["extensions"]) == (6, [extension])
    assert json.loads((short / "results.json").read_text()) == results
    for name in ("results.json", "report.html", "probe.npz", "predictions.npz"):
        assert (short / "results_4" / name).read_bytes() == before[name], name
    rows = rows_of(short)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    rate = [row["train/learning_rate"] for row in rows]
    assert rate[3] == rate[4] == rate[5]
    saved = json.loads((short / "config.json").read_text())
    assert (saved["steps"], saved["optimizer"]["extension"]) == (6, "constant")
    (start,) = json.loads((short / "config_history.json").read_text())["starts"]
    assert start["fields"] == {"optimizer.extension": [None, "constant"], "steps": [4, 6]}
    assert (start["step"], start["extension"]) == (4, [4, 6, "constant"])
    record = json.loads((short / "checkpoints" / "6" / "record" / "metadata").read_text())
    assert (record["history"], record["config"]["steps"]) == ([start], 6)
    assert trained(short, 6, "constant") == results  # the same command again
    with pytest.raises(UserError, match="a run cannot be made shorter"):
        trained(short, 4)


def test_a_run_without_a_report_may_be_made_longer(short):
    (short / "report.html").unlink()
    run = build_run(config_of(6, "constant"), short, tiny_dataset(), devices=DEVICE)
    assert run.lengths.extensions == (longer.Extension(4, 6, "constant"),)


def test_the_data_go_on_in_the_order_of_a_run_that_was_always_so_long(short, tmp_path):
    whole = build_run(config_of(7), tmp_path / "other", tiny_dataset(), devices=DEVICE)
    run = build_run(config_of(7, "rewarm"), short, tiny_dataset(), devices=DEVICE)
    for ours, theirs in zip(run.batches(4, 7), whole.batches(4, 7), strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


@pytest.mark.slow
def test_a_longer_run_that_is_killed_ends_as_the_one_that_was_not(tmp_path):
    """Real processes, told by the command line: 12 steps, then 30, killed with SIGKILL after 14 and after 20."""
    changes = {"checkpoint.every_steps": 3, "optimizer.schedule": "cosine"}
    killing.finish(running.start(tmp_path / "whole", changes))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    changes |= {"steps": 30, "optimizer.extension": "rewarm"}
    killing.finish(running.start(tmp_path / "whole", changes))
    for num_rows in (14, 20):
        process = running.start(tmp_path / "killed", changes)
        running.wait_for_rows(tmp_path / "killed", num_rows)
        process.kill()
        ((status, _, said),) = running.ended([process])
        assert status == -signal.SIGKILL, said
    killing.finish(running.start(tmp_path / "killed", changes))
    outcomes = [killing.outcome(tmp_path / name) for name in ("whole", "killed")]
    assert outcomes[0] == outcomes[1]
    assert [row["step"] for row in outcomes[0]["rows"]] == list(range(1, 31))
    assert outcomes[0]["results"]["extensions"] == [{"start": 12, "end": 30, "how": "rewarm"}]


@pytest.mark.slow
def test_from_the_command_line_fields_change_and_a_run_becomes_longer_twice(tmp_path):
    """Real processes: a quarter of an epoch of the digits, which is 8 of 33 steps, then 12 and 16."""

    def said_by(changes, flags=()):
        ((status, _, said),) = running.ended([running.start(tmp_path, changes, flags)])
        assert status == 0, said
        return said

    changes = {"steps": None, "epochs": 0.25, "optimizer.schedule": "cosine"}
    said_by(changes)
    free = {
        "log_steps": 3, "dataset.num_threads": 1, "dataset.memory_limit": 64.0, "dataset.input_bound_share": 0.5,
        "dataset.max_damaged_share": 0.5, "dataset.skip_damaged": True, "evaluate.batch_size": 64, "evaluate.every_epochs": 9.0,
        "checkpoint.keep": 5, "checkpoint.every_steps": 4, "teacher.allow_poor": True,
    }  # fmt: skip
    longer_once = changes | free | {"epochs": 0.375, "optimizer.extension": "constant"}
    first = said_by(longer_once, ["--watchdog_seconds", "900"])
    for name, value in free.items():
        assert f"{name} is {value!r} from here on; it was " in first
    longer_twice = longer_once | {"epochs": 0.5, "optimizer.extension": "rewarm"}
    second = said_by(longer_twice)
    sentences = [
        f"the run was finished after {start} steps ({start / 33:g} epochs) and was made longer, to {end} ({end / 33:g} epochs): "
        for start, end in ((8, 12), (12, 16))
    ]
    page = html.unescape((tmp_path / "report.html").read_text())
    assert all(sentence in second and sentence in page for sentence in sentences)
    results = json.loads((tmp_path / "results.json").read_text())
    extensions = [{"start": 8, "end": 12, "how": "constant"}, {"start": 12, "end": 16, "how": "rewarm"}]
    assert (results["steps"], results["epochs"], results["extensions"]) == (16, 16 / 33, extensions)
    kept = [json.loads((tmp_path / f"results_{steps}" / "results.json").read_text())["steps"] for steps in (8, 12)]
    assert kept == [8, 12]
    record = json.loads((tmp_path / "checkpoints" / "16" / "record" / "metadata").read_text())
    assert [start["extension"] for start in record["history"]] == [[8, 12, "constant"], [12, 16, "rewarm"]]
    assert set(record["history"][0]["fields"]) == {*free, "epochs", "optimizer.extension"}
    before = files(tmp_path)
    for refused, words in (
        ({"seed": 1}, "seed (0 there, 1 now)"),
        ({"loss.temperature": 0.3}, "loss.temperature ("),
        ({"epochs": 0.375}, "a run cannot be made shorter"),
        ({"epochs": 0.75, "optimizer.extension": None}, "how does its learning rate go on?"),
    ):
        ((status, printed, said),) = running.ended([running.start(tmp_path, longer_twice | refused)])
        assert (status, printed) == (1, "")
        assert said.startswith("error: ") and said.count("\n") == 1 and words in said, said
        assert files(tmp_path) == before


@pytest.mark.parametrize("moment", ["history", "config", "report"])
def test_a_kill_while_the_workdir_is_claimed_changes_nothing(short, monkeypatch, moment):
    """After the history is written; after config.json; after the report is moved."""
    before = (short / "results.json").read_bytes()

    def killed(*args):
        raise KeyboardInterrupt

    def write_json(path, content, real=train.workdir.write_json):
        if moment == "history" and path.name == "config.json":
            killed()
        real(path, content)

    def move(path, new_path, real=longer.paths.move):
        if moment == "config" or path.name == "suspicious_labels.csv":
            killed()
        real(path, new_path)

    with monkeypatch.context() as patched:
        patched.setattr(train.workdir, "write_json", write_json)
        patched.setattr(longer.paths, "move", move)
        with pytest.raises(KeyboardInterrupt):
            trained(short, 5, "constant")
    monkeypatch.setattr(train.loop, "train", killed)
    with pytest.raises(KeyboardInterrupt):  # of loop.train: all before it is done
        trained(short, 5, "constant")
    assert len(json.loads((short / "config_history.json").read_text())["starts"]) == 1
    assert json.loads((short / "config.json").read_text())["steps"] == 5
    assert (short / "results_4" / "results.json").read_bytes() == before
    assert not any((short / name).exists() for name in ("results.json", "report.html", "probe.npz"))


def test_results_that_were_kept_are_not_overwritten(short):
    (short / "results_4").mkdir()
    (short / "results_4" / "probe.npz").write_text("mine")
    with pytest.raises(UserError, match="which has one already; move one of them away"):
        trained(short, 5, "constant")
    assert (short / "results_4" / "probe.npz").read_text() == "mine"
