"""A step that went wrong is kept, and computed again on other devices and in another data type."""

import json
import re
import subprocess
import sys

import flax
import jax
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.run import diverged, divergence, replay, train
from gensupcon_jax.run.run import Run
from gensupcon_jax.store.checkpoint import read_newest, saved_steps
from tests.running import told
from tests.tiny import tiny_config, tiny_dataset

DATA = tiny_dataset()


def diverging(folder, *, num_devices=2, **changes):
    """The error of a run whose rate is far too high, and its workdir."""
    changes = {"optimizer.learning_rate": 1e18, "optimizer.warmup_epochs": 0.0, "evaluate.every_epochs": 0.0} | changes
    with pytest.raises(UserError) as error:
        train.train_and_evaluate(tiny_config(**changes), folder, DATA, devices=jax.devices()[:num_devices])
    return str(error.value)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "bad"
    message = diverging(folder)
    assert message.endswith(
        f"gensupcon replay {folder} --step 2 computes it again and says where its first bad value is"
    )
    return folder


def test_the_step_is_kept_with_its_batch_key_and_state(workdir):
    kept = diverged.read_kept_step(workdir)
    assert (kept.step, kept.about["why"], kept.names) == (2, "not finite", [])
    saved = read_newest(workdir / "checkpoints", ("params", "batch_stats", "opt_state"))
    assert saved.step == 1
    leaves = jax.tree_util.tree_leaves_with_path(saved.fields)
    for path, leaf in leaves:
        assert np.array_equal(kept.state[jax.tree_util.keystr(path, simple=True, separator="/")], leaf)
    assert np.array_equal(kept.batch["images"], DATA.train.images[kept.indices])
    assert len(set(kept.indices.tolist())) == 32
    seeds = jax.random.split(jax.random.key(tiny_config().seed))
    assert np.array_equal(kept.seed_key, jax.random.key_data(seeds[1]))
    assert [path.name for path in (workdir / "diverged").iterdir()] == ["step_00000002.npz"]


@pytest.mark.slow
def test_the_step_is_kept_without_its_place_where_a_device_has_no_memory_to_look(tmp_path, monkeypatch):
    def has_no_memory(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 20 GiB")

    monkeypatch.setattr(divergence, "look_inside", has_no_memory)
    message = diverging(tmp_path, num_devices=1)
    assert message.startswith(
        "step 2 is not finite: its values could not be looked at (RESOURCE_EXHAUSTED: Out of memory). Likely causes: "
    )
    assert message.endswith(
        f"gensupcon replay {tmp_path} --step 2 computes it again and says where its first bad value is"
    )
    assert diverged.read_kept_step(tmp_path).found is None
    assert saved_steps(tmp_path / "checkpoints") == [1]


@pytest.mark.parametrize("num_devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_it_is_computed_again_on_another_number_of_devices(workdir, num_devices):
    replayed = replay.replay(workdir, num_devices=num_devices)
    assert (replayed.num_devices, list(replayed.found), replayed.is_bad) == (num_devices, ["float32"], True)
    bad = replayed.found["float32"].bad
    said = replay.replay_in_words(replayed)
    assert (
        f"step 2, which was kept as not finite, in float32 on {num_devices} x cpu (the run: float32 on 2 x cpu)" in said
    )
    assert f"{bad.kind} {bad.name} at {list(bad.index)}" in said
    assert "\nthe run found the same\n" in said
    assert said.endswith(
        "in float32 the step is not finite: the cause is the data, the rate or the temperature, not the data type"
    )
    assert (workdir / "results.json").exists() is False


def test_the_first_bad_module_is_kept_too(workdir, tmp_path):
    found = diverged.read_kept_step(workdir).found
    assert np.isnan(found.loss) and np.isnan(found.gradient_norm) and np.isnan(found.bad.value)
    assert (
        divergence.bad_in_words(found.bad)
        == "the first module whose output is not finite is backbone/stage1_block1/bn1"
    )
    assert (found.bad.shape, found.bad.index, found.bad.device) == ((32, 8, 8, 4), (0, 0, 0, 0), 0)
    assert (found.bad.count, found.bad.images) == (16384, tuple(range(32)))  # of two views of 32 images on two devices

    def of_another_module(about, arrays):
        about["found"]["bad"]["name"] = "head/output"

    other = diverged.read_kept_step(rewritten(workdir, tmp_path, of_another_module))
    looked = divergence.Looked(found.bad, np.nan, np.nan)
    said = replay.replay_in_words(replay.Replayed(other, {"float32": looked}, 1, "cpu", []))
    assert "\nthe run found another: the first module whose output is not finite is head/output\n" in said


def test_the_command_says_where_and_ends_with_status_0(workdir, capfd):
    status, printed, said = told(capfd, "replay", workdir, "--devices", "1")
    assert status == 0 and said == ""
    first, loss, found, place, *_ = printed.splitlines()
    assert first.startswith("step 2, which was kept as not finite, in float32 on 1 x cpu")
    assert loss == "loss nan, norm of the gradient nan"
    assert found.startswith("the first module whose output is not finite is ")
    assert place.startswith(f"output {found.rpartition(' ')[2]} at [")


def fails(capfd, *arguments):
    status, printed, said = told(capfd, "replay", *arguments)
    assert (status, printed, said.count("\n")) == (1, "", 1)
    return said


def test_what_cannot_be_replayed_is_one_line(workdir, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    assert "has kept no step that went wrong (no diverged/step_*.npz)" in fails(capfd, tmp_path / "empty")
    assert "is not a folder; allowed: the --workdir of a run" in fails(capfd, tmp_path / "nothing")
    assert f"--step is 7, and {workdir} has not kept it; allowed: 2" in fails(capfd, workdir, "--step", "7")
    assert "--devices is 9; allowed: 1 to 8, the devices of this machine" in fails(capfd, workdir, "--devices", "9")
    assert "batch_size is 32, not divisible by 3 devices" in fails(capfd, workdir, "--devices", "3")


def copied(workdir, folder, change):
    """A workdir whose kept step has other content."""
    (folder / "diverged").mkdir(parents=True)
    name = "step_00000002.npz"
    (folder / "diverged" / name).write_bytes(change((workdir / "diverged" / name).read_bytes()))
    return folder


def test_a_damaged_file_is_one_line(workdir, tmp_path, capfd):
    for number, place in enumerate((0.3, 0.5, 0.7)):

        def flipped(content, place=place):
            content = bytearray(content)
            content[int(len(content) * place)] ^= 1
            return bytes(content)

        folder = copied(workdir, tmp_path / str(number), flipped)
        assert "is not the 'step that went wrong 1' that a run has kept" in fails(capfd, folder)
    folder = copied(workdir, tmp_path / "short", lambda content: content[: len(content) // 2])
    assert "put back the file of the run, or remove it" in fails(capfd, folder)


def rewritten(workdir, folder, change):
    """A workdir whose kept step says something else about itself, as one of another version or of larger images would."""
    path = workdir / "diverged" / "step_00000002.npz"
    arrays = diverged.read_kept(path, diverged.KIND)
    about = json.loads(arrays["about"].tobytes())
    change(about, arrays)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return copied(workdir, folder, lambda _: diverged.kept_content(diverged.KIND, arrays))


def test_a_step_of_another_version_is_one_line(workdir, tmp_path, capfd):
    def unknown_field(about, arrays):
        about["config"]["loss"]["margin"] = 1.0

    said = fails(capfd, rewritten(workdir, tmp_path / "field", unknown_field))
    assert "whose config this version does not take (loss.margin is not a field of the config" in said

    def another_layer(about, arrays):
        arrays["state/params/head/more"] = np.zeros(3, np.float32)

    said = fails(capfd, rewritten(workdir, tmp_path / "layer", another_layer))
    assert "params/head/more is ((3,), 'float32'), expected nothing (1 arrays in total)" in said


def without_images(about, arrays):
    for name in [name for name in arrays if name.startswith("batch/")]:
        del arrays[name]


def test_without_its_images_they_are_read_from_the_data_if_these_are_the_same(workdir, tmp_path, capfd):
    folder = rewritten(workdir, tmp_path / "large", without_images)
    said = fails(capfd, folder)
    assert "the images of step 2 take more than 64 MiB and were not kept, and its data cannot be read: " in said
    with pytest.raises(UserError, match="and arrays now has other data: its fingerprint is "):
        replay.replay(folder, dataset=tiny_dataset(seed=1))
    here, there = (replay.replay(each, num_devices=1, dataset=DATA).found["float32"] for each in (folder, workdir))
    assert str(here.bad) == str(there.bad)  # the values are NaN


def test_after_the_run_has_moved_its_data_and_become_longer_they_are_still_read(workdir, tmp_path):
    def of_a_moved_data_set(about, arrays):
        without_images(about, arrays)
        about["config"]["dataset"]["folder"] = str(tmp_path / "gone")

    folder = rewritten(workdir, tmp_path / "moved", of_a_moved_data_set)
    config = json.loads((workdir / "config.json").read_text())
    config["steps"], config["optimizer"]["extension"] = 60, "constant"
    (folder / "config.json").write_text(json.dumps(config))
    kept = diverged.read_kept_step(folder)
    assert replay._config_of(kept, folder).dataset.folder is None
    assert kept.about["config"]["steps"] == 6
    assert replay.replay(folder, num_devices=1, dataset=DATA).is_bad


def test_it_takes_as_many_devices_as_the_run_had_and_says_what_differs_on_others(workdir):
    kept = diverged.read_kept_step(workdir)
    config = replay._config_of(kept, workdir)
    assert jax.device_count() == 8
    assert replay._num_devices(kept, config, None) == 2
    config.model.batch_norm, of_keys = "local", replay._config_of(kept, workdir)
    assert replay._with_statistics_of_the_run(kept, config, 2)[1] == []
    alone, notes = replay._with_statistics_of_the_run(kept, config, 1)
    assert (alone.microbatches, notes) == (2, [])
    of_keys.model.batch_norm, of_keys.loss.mode = "local", "momentum"
    (note,) = replay._with_statistics_of_the_run(kept, of_keys, 1)[1]
    assert note.startswith("the run had 2 devices, which exchanged the images of keys: ")


def test_a_device_that_is_not_here_is_one_line(workdir):
    command = [sys.executable, "-m", "gensupcon_jax", "replay", str(workdir), "--device", "rocm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --device is rocm, which jax does not find here")
    assert "Traceback" not in done.stderr


def test_what_is_finite_here_has_a_status_of_its_own(workdir, tmp_path, capfd):
    def good_parameters(about, arrays):
        for name in [name for name in arrays if name.startswith("state/params")]:
            arrays[name] = np.ones_like(arrays[name]) * 0.01
        for name in [name for name in arrays if name.startswith("state/opt_state")]:
            arrays[name] = np.zeros_like(arrays[name])
        about["config"]["optimizer"]["learning_rate"] = 0.1

    status, printed, _ = told(capfd, "replay", rewritten(workdir, tmp_path / "good", good_parameters), "--devices", "1")
    assert status == 3
    assert printed.endswith("every value is finite here\n")


def test_a_value_beyond_bfloat16_but_not_float32_is_told_apart(workdir, tmp_path):
    # In bfloat16 3.4e38 is rounded to infinity, in float32 it is the largest number.
    first, second = (divergence_of(value) for value in (np.inf, None))
    replayed = replay.Replayed(diverged.read_kept_step(workdir), {"bfloat16": first, "float32": second}, 1, "cpu", [])
    said = replay.replay_in_words(replayed)
    assert "output backbone/stem/conv at [3, 0] (4 x 2 on a device: 8 values) of device 0: inf" in said
    assert f"images of the batch: 3 (training image {diverged.read_kept_step(workdir).indices[3]})" in said
    assert said.endswith(
        "in float32 every value is finite: the cause is the data type, bfloat16; set model.dtype to float32"
    )


def divergence_of(value):
    bad = value and replay.Bad("output", "backbone/stem/conv", (4, 2), 0, (3, 0), value, 1, (3,))
    return replay.divergence.Looked(bad, 1.0, 2.0)


@pytest.mark.slow
def test_a_run_in_bfloat16_that_leaves_its_range_is_found_kept_and_finite_in_float32(tmp_path, monkeypatch):
    # A weight of 3.4e38, which bfloat16 rounds to infinity, at a channel that is always 0: 0 in float32, NaN in bfloat16.
    drawn = Run.initial_state

    def with_a_large_weight(run):
        state = drawn(run)
        params = flax.core.copy(state.params)
        block = params["backbone"]["stage1_block1"]
        block["bn1"]["scale"] = block["bn1"]["scale"].at[0].set(0.0)
        block["conv2"]["kernel"] = block["conv2"]["kernel"].at[1, 1, 0, 2].set(3.4e38)
        return state.replace(params=params)

    monkeypatch.setattr(Run, "initial_state", with_a_large_weight)
    changes = {"model.dtype": "bfloat16", "optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.0}
    message = diverging(tmp_path, num_devices=1, **changes)
    module = "the first module whose output is not finite is backbone/stage1_block1/conv2"
    assert message.startswith(f"step 1 is not finite: {module}. Likely causes: ")
    kept = diverged.read_kept_step(tmp_path)
    assert (kept.step, kept.about["config"]["model"]["dtype"], kept.found.bad.name) == (
        1,
        "bfloat16",
        "backbone/stage1_block1/conv2",
    )
    assert kept.state["params/backbone/stage1_block1/conv2/kernel"][1, 1, 0, 2] == np.float32(3.4e38)
    replayed = replay.replay(tmp_path, num_devices=1)
    assert [(dtype, looked.bad is None) for dtype, looked in replayed.found.items()] == [
        ("bfloat16", False),
        ("float32", True),
    ]
    said = replay.replay_in_words(replayed)
    assert said.startswith(
        "step 1, which was kept as not finite, in bfloat16 on 1 x cpu (the run: bfloat16 on 1 x cpu)\n"
    )
    assert f"\n{module}\noutput backbone/stage1_block1/conv2 at [0, 0, 0, 2] (" in said
    assert said.endswith(
        "\nthe run found the same\n"
        "in float32 every value is finite: the cause is the data type, bfloat16; set model.dtype to float32"
    )


@pytest.mark.slow
def test_a_run_in_bfloat16_whose_rate_is_too_high_is_bad_in_float32_too(tmp_path):
    message = diverging(tmp_path, num_devices=1, **{"model.dtype": "bfloat16"})
    assert message.startswith("step 2 is not finite: the first module whose output is not finite is ")
    replayed = replay.replay(tmp_path, num_devices=1)
    assert [looked.bad is None for looked in replayed.found.values()] == [False, False]
    assert "the cause is the data, the rate or the temperature, not the data type" in replay.replay_in_words(replayed)


def test_a_full_disk_loses_neither_the_message_nor_the_checkpoint(tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diverged, "write_whole", full)
    message = diverging(tmp_path)
    assert message.startswith("step 2 is not finite: ")
    assert message.endswith(f"step 2 could not be kept in {tmp_path / 'diverged'} (No space left on device)")
    assert saved_steps(tmp_path / "checkpoints") == [1]
    assert diverged.kept_steps(tmp_path) == []


@pytest.mark.slow
def test_every_replay_that_was_offered_is_there(tmp_path, capfd):
    message = diverging(tmp_path, num_devices=1, **{"optimizer.max_skipped_steps": 4, "log_steps": 6})
    assert message.startswith("step 6 is not finite: ")
    assert "; 4 such steps were skipped before it" in message
    assert diverged.kept_steps(tmp_path) == [2, 3, 4, 6]
    said = [line for line in capfd.readouterr().err.splitlines() if "was skipped (not finite; " in line]
    offered = [int(found) for found in re.findall(r"gensupcon replay \S+ --step (\d+)", "\n".join([*said, message]))]
    assert offered == [2, 3, 4, 6]
    assert said[3].endswith(f"it is not kept, as 3 steps are in {tmp_path / 'diverged'} already")
    kept = diverged.read_kept_step(tmp_path, 4)
    assert (int(kept.state["step"]), int(kept.state["skipped_steps"]), kept.found) == (3, 2, None)
    again = replay.replay(tmp_path, step=4, num_devices=1)
    assert again.is_bad
    message = diverging(tmp_path, num_devices=1, **{"optimizer.max_skipped_steps": 2, "log_steps": 6})
    assert message == ("optimizer.max_skipped_steps is 2, and this run has already skipped 4 steps; allowed: 4 or more")


def test_what_is_kept_has_a_bound_whatever_the_starts(workdir, tmp_path):
    content = diverged.read_kept(workdir / "diverged" / "step_00000002.npz", diverged.KIND)

    def keep(step, *, is_last):
        about = json.loads(content["about"].tobytes()) | {"step": step}
        said = diverged.keep_step(tmp_path, content | {"about": diverged._packed(about)}, is_last=is_last)
        return said, diverged.kept_steps(tmp_path)

    assert keep(9, is_last=True) == ("", [9])  # the run ended here, and was started again
    assert keep(10, is_last=False) == ("", [9, 10])
    assert keep(12, is_last=False) == ("", [9, 10, 12])
    said, kept = keep(13, is_last=False)
    assert (said, kept) == (f"it is not kept, as 3 steps are in {tmp_path / 'diverged'} already", [9, 10, 12])
    assert keep(12, is_last=False) == ("", [9, 10, 12])  # once more, after a kill
    assert keep(20, is_last=True) == ("", [9, 10, 12, 20])
    assert keep(30, is_last=True) == ("", [9, 10, 12, 30])


@pytest.mark.slow
def test_a_spike_is_kept_noted_and_replayed_and_one_too_many_ends_the_run(tmp_path, capfd):
    # So small a number of deviations that every step above the mean of the two before it is a spike.
    changes = {"optimizer.spike_deviations": 0.001, "optimizer.spike_window": 2, "optimizer.max_skipped_steps": 2}
    changes |= {"optimizer.learning_rate": 0.1, "steps": 40, "log_steps": 1}
    message = diverging(tmp_path, num_devices=1, **changes)
    *skipped, last = diverged.kept_steps(tmp_path)
    assert message.startswith(
        f"step {last} is a spike, and 2 steps were skipped before it, as many as optimizer.max_skipped_steps allows: loss "
    )
    assert (
        "deviations above the mean" in message
        and "of the last 2 accepted steps (optimizer.spike_deviations)" in message
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    counts = {row["step"]: row["train/spikes"] for row in rows if "train/spikes" in row}
    assert [counts[step] for step in skipped] == [1, 2] and max(counts.values()) == 2
    said = [sentence for row in rows for sentence in row.get("advice", ())]
    assert sum(f"step {skipped[0]} was skipped (spike; 1 of at most 2" in sentence for sentence in said) == 1
    status, printed, _ = told(capfd, "replay", tmp_path, "--step", skipped[0], "--devices", "1")
    assert status == 0
    assert "which was kept as spike" in printed and "of the last 2 accepted steps" in printed
    assert saved_steps(tmp_path / "checkpoints")[-1] == last - 1
