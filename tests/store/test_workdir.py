"""A workdir belongs to one run: nothing in it is overwritten by another."""

import json

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.store import metrics, workdir

CONFIG = {"seed": 0, "loss": {"temperature": 0.1, "mode": "all"}, "augment": {"crop_scale": (0.2, 1.0)}}
DATASET = {"name": "digits", "fingerprint": "abc"}


def test_a_new_folder_is_created_with_its_parents_and_claimed(tmp_path):
    folder = tmp_path / "a" / "b"
    workdir.claim(folder, CONFIG, DATASET)
    assert json.loads((folder / "config.json").read_text()) == {**CONFIG, "augment": {"crop_scale": [0.2, 1.0]}}
    assert json.loads((folder / "dataset.json").read_text()) == DATASET
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "dataset.json"]


def test_the_same_run_may_resume(tmp_path):
    workdir.claim(tmp_path, CONFIG, DATASET)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    workdir.claim(tmp_path, CONFIG, DATASET)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_config_is_an_error_that_names_the_fields(tmp_path):
    workdir.claim(tmp_path, CONFIG, DATASET)
    other = {**CONFIG, "seed": 1, "loss": {"temperature": 0.2, "mode": "all"}}
    with pytest.raises(UserError) as error:
        workdir.claim(tmp_path, other, DATASET)
    assert "loss.temperature (0.1 there, 0.2 now), seed (0 there, 1 now)" in str(error.value)
    assert "mode" not in str(error.value)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_other_data_is_an_error(tmp_path):
    workdir.claim(tmp_path, CONFIG, DATASET)
    with pytest.raises(UserError, match="different data: fingerprint"):
        workdir.claim(tmp_path, CONFIG, {**DATASET, "fingerprint": "abd"})


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "results.json", "report.html", "checkpoints", "probe.npz", "neighbors.npz", "predictions.npz"],
)
def test_results_of_unknown_origin_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"contains {name}, which would be overwritten"):
        workdir.claim(tmp_path, CONFIG, DATASET)
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_with_unrelated_files_may_be_used(tmp_path):
    (tmp_path / "job.log").write_text("mine")
    workdir.claim(tmp_path, CONFIG, DATASET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "dataset.json", "job.log"]
    assert (tmp_path / "job.log").read_text() == "mine"


def test_a_path_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\); set --workdir"):
        workdir.claim(tmp_path / "file" / "run", CONFIG, DATASET)
    with pytest.raises(UserError, match=r"cannot be written \(File exists\)"):
        workdir.claim(tmp_path / "file", CONFIG, DATASET)


DAMAGED = [b"", b"{", b'{"seed": 0, "lin', b"[1]", b"5", b"\xff\xfe\x00", b"\x00" * 20]


def message_of(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_a_damaged_file_is_an_error_and_is_kept(tmp_path, name, content):
    workdir.claim(tmp_path, CONFIG, DATASET)
    (tmp_path / name).write_bytes(content)
    message = message_of(workdir.claim, tmp_path, CONFIG, DATASET)
    assert message.startswith(f"{tmp_path / name} cannot be read (")
    assert message.endswith("); restore it from a copy, or choose another --workdir")
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_a_kill_between_the_two_files_leaves_a_folder_that_can_be_resumed(tmp_path, name):
    workdir.claim(tmp_path, CONFIG, DATASET)
    (tmp_path / name).unlink()
    (tmp_path / f".{name}.1").write_text("{")  # a partial file left by the kill
    workdir.claim(tmp_path, CONFIG, DATASET)
    workdir.claim(tmp_path, CONFIG, DATASET)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert json.loads((tmp_path / "dataset.json").read_text()) == DATASET


def test_the_config_is_written_first(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(workdir, "write_json", lambda path, content: written.append(path.name))
    workdir.claim(tmp_path, CONFIG, DATASET)
    assert written == ["config.json", "dataset.json"]


def test_one_file_of_another_run_is_an_error_and_nothing_is_written(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({**DATASET, "fingerprint": "abd"}))
    assert "different data: fingerprint ('abd' there, 'abc' now)" in message_of(
        workdir.claim, tmp_path, CONFIG, DATASET
    )
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_results_beside_only_one_file_are_not_overwritten(tmp_path, name):
    workdir.claim(tmp_path, CONFIG, DATASET)
    (tmp_path / name).unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    message = message_of(workdir.claim, tmp_path, CONFIG, DATASET)
    assert f"has no {name} but contains metrics.jsonl, which would be overwritten" in message
    assert not (tmp_path / name).exists()


def test_results_are_those_of_a_finished_run(tmp_path):
    assert workdir.read_results(tmp_path) is None
    workdir.write_json(tmp_path / "results.json", {"seed": 0})
    assert workdir.read_results(tmp_path) is None
    (tmp_path / "report.html").write_text("")
    assert workdir.read_results(tmp_path) == {"seed": 0}
    (tmp_path / "results.json").unlink()
    assert workdir.read_results(tmp_path) is None


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_results_are_an_error_and_are_kept(tmp_path, content):
    (tmp_path / "report.html").write_text("")
    (tmp_path / "results.json").write_bytes(content)
    message = message_of(workdir.read_results, tmp_path)
    assert message.startswith(f"{tmp_path / 'results.json'} cannot be read (")
    assert "; move it away to evaluate the trained encoder again" in message
    assert (tmp_path / "results.json").read_bytes() == content


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"step": 2, "train/lo', "cannot be read (Unterminated string"),
        ("\x00\x00", "cannot be read (Expecting value"),
        ("[2]", "is not a row of metrics with a step"),
        ('{"train/loss": 1.0}', "is not a row of metrics with a step"),
        ('{"step": "2"}', "is not a row of metrics with a step"),
    ],
)
def test_a_bad_line_within_the_metrics_is_an_error_and_is_kept(tmp_path, line, found):
    content = '{"step": 1}\n\n' + line + '\n{"step": 3}\n'
    (tmp_path / "metrics.jsonl").write_text(content)
    message = message_of(metrics.read_metrics, tmp_path)
    assert message.startswith(f"{tmp_path / 'metrics.jsonl'}, line 3, {found}")
    assert message.endswith("; remove this line, or choose another --workdir")
    assert message_of(metrics.MetricsFile, tmp_path, 2) == message
    assert (tmp_path / "metrics.jsonl").read_text() == content


def test_metrics_that_are_not_text_are_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\n")
    assert "metrics.jsonl cannot be read ('utf-8' codec" in message_of(metrics.read_metrics, tmp_path)


def test_metrics_resume_without_gap_repetition_or_truncated_line(tmp_path):
    writer = metrics.MetricsFile(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, {"train/loss": 10.0 - step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')  # killed while writing

    writer = metrics.MetricsFile(tmp_path, 2)  # continues from a checkpoint of step 2
    writer.write(3, {"train/loss": 7.0})
    writer.write(4, {"train/loss": float("nan")})
    writer.close()
    expected = [{"step": step, "train/loss": value} for step, value in ((1, 9.0), (2, 8.0), (3, 7.0), (4, None))]
    assert metrics.read_metrics(tmp_path) == expected


def test_files_are_written_atomically(tmp_path):
    workdir.write_json(tmp_path / "results.json", {"a": 1})
    with pytest.raises(TypeError):
        workdir.write_json(tmp_path / "results.json", {"a": object()})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 1}
