"""Flags for the CPU are set only there, and only where the user has set none."""

import subprocess
import sys
from pathlib import Path

import pytest

from gensupcon_jax import cpu_flags

ROOT = Path(__file__).parent.parent


def settings(tmp_path, files=(), **environ):
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    cpu_flags.set_for_this_machine(environ, devices=tmp_path)
    return environ


def test_a_machine_without_an_accelerator_gets_the_flags(tmp_path):
    assert settings(tmp_path)["XLA_FLAGS"] == cpu_flags.FLAGS
    assert settings(tmp_path, JAX_PLATFORMS="cpu")["XLA_FLAGS"] == cpu_flags.FLAGS


@pytest.mark.parametrize("file", ["accel0", "vfio/0", "nvidia0", "kfd"])
def test_an_accelerator_gets_none_unless_jax_is_told_to_use_the_cpu(tmp_path, file):
    assert settings(tmp_path, [file]) == {}
    assert settings(tmp_path, [file], JAX_PLATFORMS="cpu")["XLA_FLAGS"] == cpu_flags.FLAGS


def test_what_the_user_set_stays(tmp_path):
    assert settings(tmp_path, XLA_FLAGS="")["XLA_FLAGS"] == ""
    assert settings(tmp_path, XLA_FLAGS="--mine")["XLA_FLAGS"] == "--mine"
    assert settings(tmp_path, JAX_PLATFORMS="cuda") == {"JAX_PLATFORMS": "cuda"}


def test_jax_knows_the_flags_and_starts_in_silence():
    program = (
        "import os, pathlib, jax; from gensupcon_jax import cpu_flags;"
        "cpu_flags.set_for_this_machine(os.environ, pathlib.Path('/no/devices'));"
        "print(jax.jit(lambda x: x @ x)(jax.numpy.ones((2, 2))).sum(), os.environ['XLA_FLAGS'])"
    )
    environ = {"PATH": "/usr/bin:/bin"}  # of pytest's own, nothing
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"8.0 {cpu_flags.FLAGS}\n", "")
