"""Weights files: reading, writing and refusals."""

import argparse
import sys
import types
from contextlib import nullcontext

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.flax

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.files import read_file, write_safetensors
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
    assert "already exists and is not overwritten" in error_of(write_safetensors, path, named_tensors(network()), {})
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
    assert "allowed: .safetensors, .pth, .pt" in error_of(read_file, tmp_path / "x.ckpt")


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
        return self.dtype.kind == "f"

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
        (ValueError("evil"), "cannot be read (ValueError)"),
    ],
)
def test_pth_files_without_a_state_dict_are_refused(tmp_path, monkeypatch, content, part):
    (tmp_path / "net.pt").touch()
    monkeypatch.setitem(sys.modules, "torch", fake_torch(content, []))
    assert part in error_of(read_file, tmp_path / "net.pt")
