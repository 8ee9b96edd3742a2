"""Weights files: reading, writing and refusals."""

import argparse
import sys
import types
from contextlib import nullcontext

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.flax
import safetensors.numpy

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.files import read_file, read_weights_file, write_safetensors
from gensupcon_jax.weights.variables import named_tensors
from tests.store.test_saved_runs import assert_same, network


def error_of(function, *arguments, **settings):
    with pytest.raises(UserError) as error:
        function(*arguments, **settings)
    return str(error.value)


def test_a_written_file_is_read_back_with_its_metadata(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    write_safetensors(path, named_tensors(network()), {"format": "pt"})
    assert_same(read_file(path), named_tensors(network()))
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"precious")
    assert "already exists and is kept" in error_of(write_safetensors, path, named_tensors(network()), {})
    assert path.read_bytes() == b"precious"


def test_half_precision_becomes_float32_and_wrappers_are_removed(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"module.conv1.weight": jnp.full((2, 1, 3, 3), 1.5, jnp.bfloat16), "fc.bias": jnp.ones(2, jnp.float16)}
    safetensors.flax.save_file(tensors, path)
    named = read_file(path)
    assert {name: str(value.dtype) for name, value in named.items()} == {
        "conv1.weight": "float32",
        "fc.bias": "float32",
    }
    assert named["conv1.weight"].max() == 1.5


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "x.ckpt").touch()
    assert "cannot be read" in error_of(read_file, tmp_path / "damaged.safetensors")
    assert "does not exist" in error_of(read_file, tmp_path / "none.safetensors")
    assert "allowed: .safetensors, .pth.tar, .pth, .pt, .bin" in error_of(read_file, tmp_path / "x.ckpt")


def test_a_pth_file_without_torch_names_the_conversion(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pth").touch()
    message = error_of(read_file, tmp_path / "net.pth")
    assert all(part in message for part in ("PyTorch", "not installed", "net.safetensors", "save_file"))


class Tensor(np.ndarray):
    """As much of torch.Tensor as is used."""

    def detach(self):
        return self

    def is_floating_point(self):
        return self.dtype.kind in "fV"  # V: the 8-bit floats of ml_dtypes

    def element_size(self):
        return self.itemsize

    def float(self):
        return self.astype(np.float32)

    def numpy(self):
        return np.asarray(self)


def fake_torch(content, allowed):
    """A torch whose `load` gives this content, and only ever safely."""

    def load(path, *, map_location, weights_only):
        assert (map_location, weights_only) == ("cpu", True)
        if isinstance(content, Exception):
            raise content
        return content

    def safe_globals(classes):
        allowed.extend(classes)
        return nullcontext()

    return types.SimpleNamespace(load=load, serialization=types.SimpleNamespace(safe_globals=safe_globals))


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"model": state, "epoch": 3}, lambda state: {"state_dict": state}]
)
def test_pth_files_are_read_safely_with_and_without_wrappers(tmp_path, monkeypatch, wrap):
    (tmp_path / "net.pth").touch()
    state = {"module.fc.bias": np.ones(2, np.float64).view(Tensor), "n": np.zeros((), np.int64).view(Tensor)}
    allowed = []
    monkeypatch.setitem(sys.modules, "torch", fake_torch(wrap(state), allowed))
    named = read_file(tmp_path / "net.pth")
    assert {name: str(value.dtype) for name, value in named.items()} == {"fc.bias": "float32", "n": "int64"}
    assert allowed == [argparse.Namespace]  # SupContrast's files have one; nothing else is unpickled


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"optimizer": 1, "epoch": 2}, "contains optimizer, epoch instead"),
        ([1], "contains list instead"),
        ({}, "contains nothing instead"),
        ({"student": {"a": np.ones(1).view(Tensor)}}, "contains student instead of a state dict"),
        ({"student": {"a": np.ones(1).view(Tensor)}}, "net.pt#student takes 'student'"),
        ({"model": {"fc.bias": np.array([1, np.nan]).view(Tensor)}}, "tensor fc.bias has 1 of 2 values that are NaN"),
        ({"fc.bias": np.ones(2, ml_dtypes.float8_e4m3fn).view(Tensor)}, "tensor fc.bias is float8_e4m3fn; allowed:"),
        (ValueError("evil"), "cannot be read (ValueError)"),
    ],
)
def test_pth_files_without_a_state_dict_are_refused(tmp_path, monkeypatch, content, part):
    (tmp_path / "net.pt").touch()
    monkeypatch.setitem(sys.modules, "torch", fake_torch(content, []))
    assert part in error_of(read_file, tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["net.pth", "net.pth.tar", "net.pt", "pytorch_model.bin"])
def test_all_endings_of_pytorchs_files_are_read(tmp_path, monkeypatch, name):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "torch", fake_torch({"fc.bias": np.ones(2).view(Tensor)}, []))
    assert list(read_file(tmp_path / name)) == ["fc.bias"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert f"to {name.split('.')[0]}.safetensors with" in error_of(read_file, tmp_path / name)


def test_of_several_state_dicts_the_usual_is_taken_and_the_others_are_offered(tmp_path, monkeypatch):
    path = tmp_path / "net.pth.tar"
    path.touch()
    averaged, plain = ({"fc.bias": np.full(2, value).view(Tensor)} for value in (9.0, 1.0))
    content = {"epoch": 3, "state_dict": plain, "state_dict_ema": averaged, "optimizer": {"lr": 0.1}}
    monkeypatch.setitem(sys.modules, "torch", fake_torch(content, []))
    named, note = read_weights_file(path)
    assert named["fc.bias"].tolist() == [1, 1]
    assert note == f"{path}: the weights under 'state_dict' are taken; {path}#state_dict_ema takes 'state_dict_ema'"
    named, note = read_weights_file(f"{path}#state_dict_ema")
    assert named["fc.bias"].tolist() == [9, 9]
    assert note == f"{path}: the weights under 'state_dict_ema' are taken; {path}#state_dict takes 'state_dict'"
    message = error_of(read_file, f"{path}#ema")
    assert message == (
        f"{path}#ema: the file has no state dict of this name; allowed: {path}#state_dict, {path}#state_dict_ema"
    )


def test_a_hash_in_the_name_of_a_file_is_part_of_it(tmp_path):
    path = tmp_path / "a#b.safetensors"
    write_safetensors(path, {"fc.bias": np.ones(2, np.float32)}, {})
    assert list(read_file(path)) == ["fc.bias"]
    assert "has no entries; leave out #x" in error_of(read_file, f"{path}#x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_the_tensor(tmp_path, value):
    path = tmp_path / "x.safetensors"
    tensors = {"a.weight": np.zeros(3, np.float32), "b.weight": np.array([[0, value], [value, 1]], np.float32)}
    safetensors.numpy.save_file(tensors, path)
    assert "tensor b.weight has 2 of 4 values that are NaN or infinite; the training" in error_of(read_file, path)
    safetensors.numpy.save_file(tensors | {"c.weight": np.full(1, value, np.float16)}, path)
    assert "infinite, and so have 1 other tensors; " in error_of(read_file, path)


@pytest.mark.parametrize(("dtype", "name"), [(jnp.float8_e4m3fn, "F8_E4M3"), (jnp.float8_e5m2, "F8_E5M2")])
def test_eight_bit_floats_are_one_clear_line(tmp_path, dtype, name):
    path = tmp_path / "x.safetensors"
    safetensors.flax.save_file({"fc.weight": jnp.ones((2, 2), dtype), "fc.bias": jnp.ones(2)}, path)
    message = error_of(read_file, path)
    assert f"tensor fc.weight is {name}; allowed: floating-point weights of 16, 32 or 64 bits" in message


def test_what_stands_beside_the_network_is_left_out_with_a_sentence(tmp_path):
    """As in a file of MoCo: the network of the queries, that of the keys, and the queue."""
    path = tmp_path / "moco.safetensors"
    names = [
        "module.encoder_q.conv1.weight",
        "module.encoder_q.fc.weight",
        "module.encoder_k.conv1.weight",
        "module.queue",
    ]
    safetensors.numpy.save_file({name: np.ones(1, np.float32) for name in names}, path)
    named, note = read_weights_file(path)
    assert sorted(named) == ["conv1.weight", "fc.weight"]
    beside = "module.encoder_k.conv1.weight, module.queue"
    assert note == f"{path}: 2 tensors beside the network are left out ({beside})"
