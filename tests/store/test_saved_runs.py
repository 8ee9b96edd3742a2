"""Reading of saved runs: from any number of devices, through chains of runs, and errors."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import Classifier, build_backbone
from gensupcon_jax.store import checkpoint, lock, saved_runs, workdir
from gensupcon_jax.store.checkpoint import Checkpoints
from gensupcon_jax.store.saved_runs import read_run, run_backbone
from tests.running import flip_a_bit
from tests.tiny import tiny_config, tiny_dataset

DATASET = tiny_dataset()
PARTS = ("backbone", "head", "classifier")


def network(seed=0, parts=PARTS, width=4, stem="auto", image_shape=(8, 8, 1)):
    """Variables of a small network, every leaf random, so that none equals an initial value."""
    backbone = build_backbone(name="resnet_small", image_size=image_shape[0], stem=stem, width=width)
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False))
    head = {"hidden": dense(4 * width, 4 * width), "output": dense(4 * width, 8)}
    layers = {"backbone": shapes["params"], "head": head, "classifier": {"output": dense(4 * width, 4)}}
    variables = {
        "params": {part: layers[part] for part in parts},
        "batch_stats": {part: shapes["batch_stats"] for part in parts if part == "backbone"},
    }
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32) + 0.5, variables)


def dense(inputs, outputs):
    return {"kernel": jax.ShapeDtypeStruct((inputs, outputs), "float32"), "bias": np.zeros(outputs, np.float32)}


def make_run(folder, *, variables=None, steps=(2, 4), description=None, **changes):
    """A workdir as training writes it; the newest checkpoint has `variables`, the others zeros."""
    variables = network() if variables is None else variables
    workdir.claim(folder, tiny_config(**changes).to_dict(), DATASET.description() | (description or {}))
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, keep=3)
    for step in steps:
        saved = variables if step == max(steps) else jax.tree.map(np.zeros_like, variables)
        others = {"step": np.int32(step), "opt_state": {"trace": np.ones(3, np.float32)}}
        checkpoints.save(step, others | {"ema_params": {"unused": np.ones(2, np.float32)}} | saved, {})
    checkpoints.close()
    return folder


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# Reading


def test_a_run_has_its_config_description_and_newest_network(tmp_path):
    run = read_run(make_run(tmp_path / "run", **{"loss.temperature": 0.2}))
    assert (run.step, run.weights_file, run.folder) == (4, None, tmp_path / "run")
    assert run.config.loss.temperature == 0.2
    assert run.description == DATASET.description()
    assert set(run.variables) == {"params", "batch_stats"}
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(run.variables))
    assert_same(run.variables, network())


def test_reading_changes_nothing_in_the_workdir(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / workdir.CHECKPOINTS / "6.orbax-checkpoint-tmp").mkdir()  # of a run that is saving
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert read_run(folder).step == 4
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_checkpoint_of_eight_devices_is_read_as_numpy(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    variables = jax.device_put(network(), everywhere)
    run = read_run(make_run(tmp_path / "run", variables=variables, steps=(4,)))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(run.variables))
    assert_same(run.variables, network())


def test_the_backbone_is_built_from_config_and_description(tmp_path):
    run = read_run(make_run(tmp_path / "run", **{"model.dtype": "bfloat16"}), need="backbone")
    backbone = run_backbone(run)
    assert (backbone.width, backbone.stem, backbone.dtype, backbone.axis_name) == (4, "cifar", jnp.bfloat16, None)
    variables = {name: tree["backbone"] for name, tree in run.variables.items()}
    assert backbone.apply(variables, jnp.ones((2, 8, 8, 1)), train=False).shape == (2, 16)
    Classifier(4).apply({"params": run.variables["params"]["classifier"]}, jnp.ones((2, 16)))


def test_a_checkpoint_of_another_config_is_one_line(tmp_path):
    """Two runs wrote at once: config.json is that of the other."""
    folder = make_run(tmp_path / "run", steps=())
    config = json.loads((folder / "config.json").read_text())
    config["log_steps"] = 99  # leaves the network as it is
    save(folder, 3, {"config": config})
    assert read_run(folder).step == 3
    config["model"]["width"] = 16
    save(folder, 4, {"config": config})
    with pytest.raises(UserError) as error:
        read_run(folder)
    assert str(error.value) == (
        f"the checkpoint of step 4 in {folder} was saved with another config than {folder}/config.json: model.width (16, not 4); "
        "two runs have written there, or the file was changed: put the file of that run back, or choose another workdir"
    )


def save(folder, step, record):
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, keep=3)
    checkpoints.save(step, network(), record)
    checkpoints.close()


def test_a_run_is_read_while_a_process_trains_in_its_workdir(tmp_path, monkeypatch, capsys):
    folder = make_run(tmp_path / "run")
    real = checkpoint._read

    def removed_meanwhile(where, step, names):
        if step == 4:  # the run goes on, and keeps two others
            shutil.copytree(where / "4", where / "6")
            shutil.rmtree(where / "4")
        return real(where, step, names)

    monkeypatch.setattr(checkpoint, "_read", removed_meanwhile)
    with lock.held(folder):
        assert read_run(folder).step == 6
        assert (folder / "run.lock").exists()
    assert capsys.readouterr().err == ""


# Which step


def make_run_with_best(folder, best):
    """Checkpoints of steps 2, 4 and 6, whose parameters are all the number of the step."""
    folder = make_run(folder, steps=())
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, keep=3)
    for step in (2, 4, 6):
        fields = jax.tree.map(lambda leaf, step=step: np.full_like(leaf, step), network())
        checkpoints.save(step, fields, {"best": best and {"step": best, "metric": "knn/top1", "value": 50.0}})
    checkpoints.close()
    return folder


@pytest.mark.parametrize(("step", "expected"), [("last", 6), ("best", 4), (2, 2), ("2", 2), (6, 6)])
def test_a_chosen_step_is_read(tmp_path, step, expected):
    run = read_run(make_run_with_best(tmp_path / "run", best=4), need="classifier", step=step)
    assert run.step == expected
    assert {float(leaf.flat[0]) for leaf in jax.tree.leaves(run.variables)} == {expected}


def test_a_step_that_is_not_there_lists_those_that_are(tmp_path):
    folder = make_run_with_best(tmp_path / "run", best=4)
    assert error_of(folder, step=3) == (
        f"step is 3, and {folder} has no checkpoint of step 3; allowed: last, best, or one of the saved steps 2, 4 (best), 6"
    )
    assert "step is 'first'; allowed: last, best, or the number of a saved step" in error_of(folder, step="first")
    assert "contains no checkpoint; train it first" in error_of(make_run(tmp_path / "empty", steps=()), step=3)


def test_without_a_recorded_best_step_the_field_is_named(tmp_path):
    folder = make_run_with_best(tmp_path / "run", best=None)
    message = error_of(folder, step="best")
    assert "records no best step" in message
    assert "evaluate.every_epochs" in message
    assert "saved steps 2, 4, 6" in message


def test_a_damaged_step_is_not_replaced_by_another(tmp_path):
    folder = make_run_with_best(tmp_path / "run", best=4)
    (folder / workdir.CHECKPOINTS / "4" / "record" / "metadata").write_text("{")
    for step in (4, "best"):
        assert "the checkpoint of step 4 in" in error_of(folder, step=step)
        assert "allowed: another of the saved steps 2, 4 (best), 6" in error_of(folder, step=step)


# Chains: the checkpoint of a probe has its classifier only


def make_probe(folder, encoder, **changes):
    variables = network(seed=1, parts=("classifier",))
    return make_run(
        folder,
        variables=variables,
        **{"objective": "linear_probe", "model.weights": str(encoder), "model.width": 2} | changes,
    )


@pytest.mark.parametrize("need", ["backbone", "classifier"])
def test_a_probe_has_the_backbone_of_the_run_that_it_evaluates(tmp_path, need):
    encoder = make_run(tmp_path / "encoder", variables=network(parts=("backbone", "head")))
    run = read_run(make_probe(tmp_path / "probe", encoder), need=need)
    assert_same(run.variables["params"]["classifier"], network(seed=1, parts=("classifier",))["params"]["classifier"])
    assert_same(run.variables["params"]["backbone"], network(parts=("backbone", "head"))["params"]["backbone"])
    assert_same(run.variables["batch_stats"], network()["batch_stats"])
    assert set(run.variables["params"]) == {"backbone", "classifier"}
    assert run_backbone(run).width == 4  # that of the encoder, not of the probe's config
    assert run.config.objective == "linear_probe"


def test_a_probe_of_a_probe_reaches_the_encoder(tmp_path):
    encoder = make_run(tmp_path / "encoder")
    first = make_probe(tmp_path / "first", encoder)
    run = read_run(make_probe(tmp_path / "second", first), need="backbone")
    assert_same(run.variables["params"]["backbone"], network()["params"]["backbone"])


def test_the_automatic_stem_is_that_of_the_encoders_image_size(tmp_path):
    variables = network(stem="imagenet", image_shape=(96, 96, 1))
    encoder = make_run(tmp_path / "encoder", variables=variables, description={"image_shape": [96, 96, 1]})
    run = read_run(make_probe(tmp_path / "probe", encoder), need="backbone")
    assert run_backbone(run).stem == "imagenet"


def test_without_a_need_the_chain_is_not_followed(tmp_path):
    run = read_run(make_probe(tmp_path / "probe", tmp_path / "nowhere"))
    assert_same(run.variables, network(seed=1, parts=("classifier",)))


def test_runs_that_were_moved_together_are_found(tmp_path):
    make_run(tmp_path / "old" / "encoder")
    make_probe(tmp_path / "old" / "probe", tmp_path / "old" / "encoder")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert "backbone" in read_run(tmp_path / "new" / "probe", need="backbone").variables["params"]


def test_the_file_of_a_probe_may_name_an_entry(tmp_path):
    (tmp_path / "net.pth").touch()
    source = f"{tmp_path / 'net.pth'}#state_dict_ema"
    assert str(read_run(make_probe(tmp_path / "probe", source), need="classifier").weights_file) == source


def test_a_chain_that_ends_at_a_file_names_it(tmp_path):
    (tmp_path / "net.safetensors").touch()
    run = read_run(make_probe(tmp_path / "probe", tmp_path / "net.safetensors"), need="classifier")
    assert run.weights_file == tmp_path / "net.safetensors"
    assert set(run.variables["params"]) == {"classifier"}


def test_a_file_behind_another_probe_is_that_probes(tmp_path):
    (tmp_path / "net.safetensors").touch()
    first = make_probe(tmp_path / "first", tmp_path / "net.safetensors", **{"model.width": 4})
    run = read_run(make_probe(tmp_path / "second", first), need="classifier")
    assert run.weights_file == tmp_path / "net.safetensors"
    assert run_backbone(run).width == 4  # its network is that of the run that names the file


# Errors


def error_of(folder, **settings):
    with pytest.raises(UserError) as error:
        read_run(folder, **settings)
    return str(error.value)


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path):
    assert "is not a folder" in error_of(tmp_path / "none")
    assert "contains no config.json" in error_of(tmp_path)
    folder = make_run(tmp_path / "run")
    (folder / workdir.DATASET).unlink()
    assert "contains no dataset.json" in error_of(folder)
    (folder / workdir.CONFIG).write_text("{")
    assert "config.json cannot be read" in error_of(folder)


def test_a_run_without_a_checkpoint_is_an_error(tmp_path):
    folder = make_run(tmp_path / "run", steps=())
    assert "contains no checkpoint; train it first" in error_of(folder)
    shutil.rmtree(folder / workdir.CHECKPOINTS)
    assert "contains no checkpoint; train it first" in error_of(folder)


def test_before_a_damaged_checkpoint_the_previous_one_is_read_with_a_warning(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    flip_a_bit(folder / workdir.CHECKPOINTS / "4" / "state")
    assert saved_runs.read_run(folder).step == 2
    said = capsys.readouterr().err
    assert said.startswith(f"warning: the checkpoint of step 4 in {folder / workdir.CHECKPOINTS} is damaged (")
    assert "; that of step 2 is used instead" in said
    assert (folder / workdir.CHECKPOINTS / "4").is_dir()  # reading does not change the run
    (folder / workdir.CHECKPOINTS / "2" / "record" / "metadata").unlink()
    assert "no checkpoint in" in error_of(folder)


def test_a_missing_part_is_named_with_the_existing_ones(tmp_path):
    folder = make_run(tmp_path / "contrastive", variables=network(parts=("backbone", "head")))
    message = error_of(folder, need="classifier")
    for part in ("contains no classifier", "'contrastive'", "backbone, head", "linear_probe"):
        assert part in message
    probe = make_probe(tmp_path / "probe", tmp_path, **{"model.weights": None})
    assert "contains no encoder" in error_of(probe, need="backbone")
    assert "allowed: backbone, classifier" in error_of(probe, need="head")


def test_a_missing_encoder_is_named_with_the_searched_paths(tmp_path):
    message = error_of(make_probe(tmp_path / "probe", "elsewhere/encoder"), need="backbone")
    for part in (str(tmp_path / "probe"), "elsewhere/encoder", str(tmp_path / "encoder")):
        assert part in message


def test_a_cycle_of_probes_is_an_error(tmp_path):
    folder = make_probe(tmp_path / "probe", tmp_path / "probe")
    assert "no encoder is found" in error_of(folder, need="backbone")
    assert saved_runs.MOST_WORKDIRS >= 3  # an encoder behind two probes is found
