"""Checkpoints are restored bit for bit on any number of devices; of a damaged one, the previous one is used."""

import errno
import json
import os
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.state import abstract
from gensupcon_jax.store import checkpoint
from gensupcon_jax.store.checkpoint import Checkpoints, fingerprints, read_newest, saved_steps
from tests.running import flip_a_bit


def fields_on(num_devices, seed=0):
    """A state as the loop saves one: parameters, optimizer, a sharded queue, a step; on this number of devices."""
    rng = np.random.default_rng(seed)
    params = {"dense": {"kernel": rng.normal(size=(50, 30)).astype(np.float32), "bias": jnp.ones(30, jnp.bfloat16)}}
    fields = {
        "step": np.int32(seed),
        "params": params,
        "opt_state": optax.sgd(0.1, 0.9).init(params),
        "queue": {"embeddings": rng.normal(size=(2, 8, 64)).astype(np.float32)},
    }
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    places = jax.tree.map(lambda _: sharding.replicated(mesh), fields)
    places["queue"] = {"embeddings": jax.NamedSharding(mesh, sharding.QUEUE)}
    return sharding.place(fields, places)


def write(folder, steps=(1, 2, 3), *, keep=5, best=None, num_devices=8):
    checkpoints = Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, fields_on(num_devices, seed=step), {"best": best, "config": {"crop": (0.2, 1.0)}})
    checkpoints.close()
    return folder


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, expected)


def restore(folder, num_devices=1):
    return Checkpoints(folder, keep=5).restore_newest(abstract(fields_on(num_devices)))


# Restoring


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_a_checkpoint_of_8_devices_is_restored_on_any_number(tmp_path, num_devices):
    restored = restore(write(tmp_path / "c"), num_devices)
    assert restored.step == 3
    assert_same_bits(restored.fields, fields_on(1, seed=3))
    assert restored.fields["queue"]["embeddings"].sharding.num_devices == num_devices
    assert restored.record["config"] == {"crop": [0.2, 1.0]}


def test_before_the_first_save_there_is_no_checkpoint(tmp_path):
    assert restore(tmp_path / "c") is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    folder = write(tmp_path / "c", steps=(1, 2, 3, 4, 5), keep=2, best={"step": 2})
    assert saved_steps(folder) == [2, 4, 5]
    checkpoints = Checkpoints(folder, keep=2)  # after a restart the best is still known
    checkpoints.restore_newest(abstract(fields_on(1)))
    checkpoints.save(6, fields_on(1, seed=6), {"best": {"step": 2}})
    checkpoints.close()
    assert saved_steps(folder) == [2, 5, 6]


def test_arrays_that_do_not_match_are_named(tmp_path):
    folder = write(tmp_path / "c")
    wanted = abstract(fields_on(1))
    wanted["params"]["dense"]["kernel"] = jax.ShapeDtypeStruct((50, 40), jnp.bfloat16)
    with pytest.raises(UserError) as error:
        Checkpoints(folder, keep=5).restore_newest(wanted)
    assert "params/dense/kernel is float32[50, 30], expected bfloat16[50, 40] (1 arrays in total)" in str(error.value)


# The fingerprint


def test_a_fingerprint_is_the_same_on_any_number_of_devices():
    assert fingerprints(fields_on(8)) == fingerprints(fields_on(2)) == fingerprints(jax.device_get(fields_on(1)))


def test_a_fingerprint_stays_what_it_was():
    fields = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "s": np.int32(7)}
    assert fingerprints(fields) == {"s": "18c9aec4bfe0b4d4", "x": "bb95d391d44a111b"}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_the_fingerprint_of_a_small_array_is_that_which_the_devices_compute(dtype):
    array = (jnp.arange(24).reshape(2, 3, 4) % 7 - 3).astype(dtype)
    expected = "".join(f"{int(part):08x}" for part in checkpoint._fingerprint_on_devices(array))
    assert fingerprints({"x": array}) == {"x": expected}


def test_a_fingerprint_depends_on_every_bit_the_order_and_the_sign_of_zero():
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    seen = {fingerprints({"x": values})["x"]}
    for bit in range(32):
        bits = values.view(np.uint32).copy()
        bits[3, 5] ^= np.uint32(1 << bit)
        seen.add(fingerprints({"x": bits.view(np.float32)})["x"])
    seen |= {fingerprints({"x": values.T.copy()})["x"], fingerprints({"x": values[::-1].copy()})["x"]}
    seen |= {fingerprints({"x": np.float32(sign)})["x"] for sign in (0.0, -0.0)}
    assert len(seen) == 1 + 32 + 2 + 2


# Damage


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def zeroed(content):
    return bytes(len(content))


def flipped(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


@pytest.mark.parametrize(
    "damage", [flipped, zeroed, lambda content: content[: len(content) // 2], lambda content: b"", None],
    ids=["bit flipped", "zeroed", "truncated", "emptied", "missing"],
)  # fmt: skip
def test_damage_to_any_file_is_found_and_the_previous_checkpoint_is_used(tmp_path, damage, capsys):
    whole = write(tmp_path / "whole", steps=(1, 2))
    num_found = 0
    for number, path in enumerate(files_of(whole / "2")):
        folder = tmp_path / str(number) / "c"
        shutil.copytree(whole, folder)
        victim = folder / path.relative_to(whole)
        if damage is None:
            victim.unlink()
        else:
            victim.write_bytes(damage(victim.read_bytes()))
        restored = restore(folder, num_devices=2)
        said = capsys.readouterr().err
        assert_same_bits(restored.fields, fields_on(1, seed=restored.step))  # never garbage, whichever file was damaged
        if restored.step == 1:
            num_found += 1
            assert f"the checkpoint of step 2 in {folder} is damaged (" in said
            assert "; that of step 1 is used instead" in said
            assert (tmp_path / str(number) / "checkpoints_damaged" / "2").is_dir()
            assert saved_steps(folder) == [1]
        else:
            assert said == ""
    assert num_found >= 5  # record, arrays, manifests, tree, metadata


def test_after_damage_the_same_step_can_be_saved_again(tmp_path):
    folder = write(tmp_path / "c", steps=(1, 2))
    flip_a_bit(folder / "2" / "state")
    checkpoints = Checkpoints(folder, keep=5)
    assert checkpoints.restore_newest(abstract(fields_on(1))).step == 1
    checkpoints.save(2, fields_on(1, seed=2), {})
    checkpoints.close()
    assert restore(folder).step == 2


def test_a_changed_record_is_found(tmp_path):
    folder = write(tmp_path / "c", steps=(1, 2))
    path = folder / "2" / "record" / "metadata"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"best": {"step": 1}}))
    assert restore(folder).step == 1


def test_when_all_are_damaged_nothing_is_changed_and_training_does_not_start(tmp_path):
    folder = write(tmp_path / "c", steps=(1, 2))
    for step in (1, 2):
        flip_a_bit(folder / str(step) / "state")
    before = {path: path.read_bytes() for path in files_of(tmp_path)}
    with pytest.raises(
        UserError, match=r"no checkpoint in .* can be used \(step 2: .*; step 1: .*\); nothing was changed"
    ):
        restore(folder)
    assert {path: path.read_bytes() for path in files_of(tmp_path)} == before


def test_an_interrupted_save_is_not_a_checkpoint(tmp_path):
    folder = write(tmp_path / "c", steps=(1, 2))
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp")
    assert restore(folder).step == 1


def test_some_fields_are_read_as_numpy_without_their_shapes(tmp_path):
    restored = read_newest(write(tmp_path / "c"), ("params", "batch_stats"))
    assert restored.fields.keys() == {"params"}
    assert_same_bits(restored.fields["params"], fields_on(1, seed=3)["params"])
    assert read_newest(tmp_path / "nothing", ("params",)) is None


# A full disk


def test_a_save_without_disk_space_is_an_error_and_the_previous_checkpoint_is_kept(tmp_path):
    folder = write(tmp_path / "c", steps=(1,))
    checkpoints = Checkpoints(folder, keep=5)
    large = {"params": {"kernel": np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)}}
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, previous[1]))  # a file may not grow beyond: EFBIG
    try:
        with pytest.raises(UserError) as error:
            checkpoints.save(2, large, {})
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    assert f"cannot be written to {folder} (" in str(error.value)
    assert "the newest good checkpoint is of step 1" in str(error.value)
    assert os.strerror(errno.EFBIG) in str(error.value)
    assert restore(folder).step == 1
    assert checkpoint.saved_steps(folder) == [1]
