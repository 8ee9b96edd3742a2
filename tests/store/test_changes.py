"""Which fields may differ from those in a workdir, and the history of those that did."""

import json
import shutil

import jax
import numpy as np
import pytest

from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.errors import UserError
from gensupcon_jax.run.run import build_run
from gensupcon_jax.store import changes, workdir
from gensupcon_jax.store.workdir import claim
from tests.tiny import tiny_config, tiny_dataset

DATA = {"name": "folder:photos", "fingerprint": "abc"}
FREE = {
    "log_steps": 7,
    "dataset.num_threads": 3,
    "dataset.max_damaged_share": 0.5,
    "dataset.input_bound_share": 0.9,
    "teacher.allow_poor": True,
    "optimizer.max_skipped_steps": 5,
    "evaluate.every_epochs": 2.0,
    "evaluate.every_steps": 9,
    "evaluate.every_images": 9,
    "evaluate.batch_size": 16,
    "checkpoint.every_epochs": 2.0,
    "checkpoint.every_steps": 9,
    "checkpoint.every_images": 9,
    "checkpoint.keep": 5,
}
SAME_CONTENT = {
    "dataset.name": "folder:moved/photos",
    "dataset.folder": "elsewhere",
    "dataset.memory_limit": 1.0,
    "dataset.skip_damaged": True,
    "model.weights": "elsewhere",
    "teacher.path": "elsewhere",
}


def config_of(**changed):
    return tiny_config(**{"dataset.name": "folder:photos"} | changed).to_dict()


def saved(folder, name="config.json"):
    return json.loads((folder / name).read_text())


def refusal(folder, config, data=DATA):
    with pytest.raises(UserError) as error:
        claim(folder, config, data)
    return str(error.value)


def test_each_field_is_of_the_kind_that_is_tested_here():
    kinds = {"yes": set(FREE), "if the content is the same": set(SAME_CONTENT)}
    kinds["to make a finished run longer"] = {"steps", "images", "epochs", "optimizer.extension"}
    for kind, names in kinds.items():
        assert {name for name, field in FIELDS.items() if field.may_change == kind} == names
    assert {field.may_change for field in FIELDS.values()} == {*kinds, "no"}


@pytest.mark.parametrize("name", [*FREE, *SAME_CONTENT])
def test_what_leaves_every_step_as_it_is_may_change(tmp_path, name):
    claim(tmp_path, config_of(), DATA)
    value = (FREE | SAME_CONTENT)[name]
    start = claim(tmp_path, config_of(**{name: value}), DATA, command="gensupcon train", step=12)
    before = changes.flatten(config_of())[name]
    assert (start.fields, start.step, start.command) == ({name: [before, value]}, 12, "gensupcon train")
    assert changes.notes_on_changes(start) == [f"{name} is {value!r} from here on; it was {before!r}"]
    assert saved(tmp_path) == json.loads(json.dumps(config_of(**{name: value})))
    assert saved(tmp_path, "config_history.json") == {"starts": [start._asdict()]}
    assert claim(tmp_path, config_of(**{name: value}), DATA) is None  # the next start changes nothing


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.may_change in ("no", changes.LONGER)])
def test_everything_else_is_refused_and_nothing_is_written(tmp_path, name):
    claim(tmp_path, config_of(), DATA)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    config = tiny_config(**{"dataset.name": "folder:photos", "log_steps": 7}).copy_and_resolve_references()
    with config.unlocked():
        group, _, last = name.rpartition(".")
        (config[group] if group else config)[last] = None if FIELDS[name].default is not None else 1
        changed = config.to_dict()
    said = refusal(tmp_path, changed)
    assert f"contains a run with different config fields: {name} (" in said
    assert "log_steps" not in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_of_an_earlier_version_is_refused_with_what_helps(tmp_path):
    claim(tmp_path, config_of(), DATA)
    earlier = saved(tmp_path)
    del earlier["optimizer"]["spike_window"]
    (tmp_path / "config.json").write_text(json.dumps(earlier))
    assert refusal(tmp_path, config_of()).endswith(
        "different config fields: optimizer.spike_window ('absent' there, 100 now); choose another --workdir, or the version of "
        "this program that began it"
    )
    assert refusal(tmp_path, config_of(seed=1) | {"optimizer": earlier["optimizer"]}).endswith(", or the same settings")


@pytest.mark.parametrize("name", SAME_CONTENT)
def test_a_path_whose_content_is_another_is_refused(tmp_path, name):
    claim(tmp_path, config_of(), DATA)
    said = refusal(tmp_path, config_of(**{name: SAME_CONTENT[name]}), DATA | {"fingerprint": "abd"})
    assert f"different config fields: {name} (" in said
    assert "different data: fingerprint ('abc' there, 'abd' now)" in refusal(
        tmp_path, config_of(), DATA | {"fingerprint": "abd"}
    )


@pytest.mark.parametrize(
    ("there", "now"), [("folder:svhn", "folder:photos"), ("folder:photos", "csv:photos"), ("digits", "digit_pairs")]
)
def test_a_name_that_says_more_than_a_path_is_refused(tmp_path, there, now):
    auto = {"augment.policy": "auto", "mix.kind": "none"}
    claim(tmp_path, config_of(**{"dataset.name": there} | auto), DATA | {"name": there})
    said = refusal(tmp_path, config_of(**{"dataset.name": now} | auto), DATA | {"name": now})
    assert f"dataset.name ({there!r} there, {now!r} now)" in said


def test_the_data_at_another_path_are_the_same_by_their_fingerprint(tmp_path):
    train = tiny_dataset().train
    np.savez(tmp_path / "images.npz", images=train.images, labels=train.labels_of(np.arange(96)).argmax(axis=1))

    def run_at(path):
        config = tiny_config(**{"dataset.name": f"arrays:{path}"})
        run = build_run(config, tmp_path / "run", devices=jax.devices()[:1])
        return run.config.to_dict(), run.description()

    claim(tmp_path / "run", *run_at(tmp_path / "images.npz"))
    shutil.move(tmp_path / "images.npz", tmp_path / "moved.npz")
    start = claim(tmp_path / "run", *run_at(tmp_path / "moved.npz"))
    assert list(start.fields) == ["dataset.name"]
    assert saved(tmp_path / "run")["dataset"]["name"] == f"arrays:{tmp_path / 'moved.npz'}"
    assert saved(tmp_path / "run", "dataset.json")["name"] == f"arrays:{tmp_path / 'moved.npz'}"
    np.savez(tmp_path / "other.npz", images=255 - train.images, labels=np.arange(96) % 4)
    with pytest.raises(UserError, match=r"different config fields: dataset.name \("):
        claim(tmp_path / "run", *run_at(tmp_path / "other.npz"))


def test_the_history_is_kept_and_a_start_that_was_killed_is_not_in_it(tmp_path, monkeypatch):
    claim(tmp_path, config_of(), DATA)
    claim(tmp_path, config_of(log_steps=3), DATA)
    with monkeypatch.context() as patched:

        def killed_after_the_history(path, content):
            if path.name == "config.json":
                raise KeyboardInterrupt
            real(path, content)

        real = workdir.write_json
        patched.setattr(workdir, "write_json", killed_after_the_history)
        with pytest.raises(KeyboardInterrupt):
            claim(tmp_path, config_of(log_steps=4), DATA)
    assert [start.fields for start in workdir.read_history(tmp_path)] == [{"log_steps": [2, 3]}]
    claim(tmp_path, config_of(log_steps=5), DATA)
    assert [start.fields["log_steps"] for start in workdir.read_history(tmp_path)] == [[2, 3], [3, 5]]


@pytest.mark.parametrize("content", ["[]", "{}", '{"starts": 3}', '{"starts": [{"a": 1}]}', '{"starts": [1]}', "{"])
def test_a_damaged_history_is_an_error(tmp_path, content):
    claim(tmp_path, config_of(), DATA)
    (tmp_path / "config_history.json").write_text(content)
    said = refusal(tmp_path, config_of(log_steps=9))
    assert said.startswith(f"{tmp_path / 'config_history.json'} cannot be read (")
    assert said.endswith("; restore it from a copy, or choose another --workdir")


@pytest.mark.parametrize(
    "extension", [[8, 4, "constant"], [0, 4, "constant"], [4, 8, "other"], [4, 8], [4, 8, None], 7]
)
def test_a_history_with_an_extension_that_none_makes_is_an_error(tmp_path, extension):
    claim(tmp_path, config_of(), DATA)
    claim(tmp_path, config_of(log_steps=3), DATA)
    path = tmp_path / "config_history.json"
    history = json.loads(path.read_text())
    history["starts"][0]["extension"] = extension
    path.write_text(json.dumps(history))
    assert "config_history.json: extension is " in refusal(tmp_path, config_of(log_steps=9))
