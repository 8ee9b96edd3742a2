"""CPU flags and the allocator are set only on CPUs, and only if the user has not set any."""

import os
import platform
import subprocess
import sys

import pytest

from gensupcon_jax.cluster import cpu_flags
from tests import ROOT

FLAGS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE"


def settings(tmp_path, files=(), **environ):
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    cpu_flags.set_for_this_machine(environ, devices=tmp_path)
    return environ


def test_a_machine_without_an_accelerator_gets_the_flags(tmp_path):
    assert settings(tmp_path)["XLA_FLAGS"] == FLAGS
    assert settings(tmp_path, JAX_PLATFORMS="cpu")["XLA_FLAGS"] == FLAGS


@pytest.mark.parametrize("file", ["accel0", "vfio/0", "nvidia0", "dxg", "kfd"])
def test_an_accelerator_gets_no_flags_unless_the_platform_is_cpu(tmp_path, file):
    assert settings(tmp_path, [file]) == {}
    assert settings(tmp_path, [file], JAX_PLATFORMS="cpu")["XLA_FLAGS"] == FLAGS


def test_flags_of_the_user_are_kept(tmp_path):
    assert settings(tmp_path, XLA_FLAGS="")["XLA_FLAGS"] == ""
    assert settings(tmp_path, XLA_FLAGS="--mine")["XLA_FLAGS"] == "--mine"
    assert settings(tmp_path, JAX_PLATFORMS="cuda") == {"JAX_PLATFORMS": "cuda"}


@pytest.mark.parametrize("version", [(0, 10, 2), (0, 11, 0), (0, 11, 2)])
def test_each_measured_version_of_jax_gets_its_flags(tmp_path, monkeypatch, version):
    monkeypatch.setattr(cpu_flags.jax, "__version_info__", version)
    assert settings(tmp_path)["XLA_FLAGS"] == FLAGS


@pytest.mark.parametrize("version", [(0, 9, 1), (0, 12, 0), (1, 0, 0)])
def test_other_versions_of_jax_get_no_flags(tmp_path, monkeypatch, version):
    monkeypatch.setattr(cpu_flags.jax, "__version_info__", version)
    assert settings(tmp_path) == {}


_LARGE_BUFFERS = """
import ctypes, os, pathlib, resource, sys
from gensupcon_jax.cluster import cpu_flags
cpu_flags.set_for_this_machine(os.environ, pathlib.Path("/no/devices"))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    buffer = libc.malloc(64 << 20)
    ctypes.memset(buffer, 1, 64 << 20)
    libc.free(buffer)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(("variable", "times"), [({}, 1), ({"GLIBC_TUNABLES": ""}, 8)])
def test_the_pages_of_a_large_buffer_are_cleared_once_unless_the_user_chose_an_allocator(variable, times):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", _LARGE_BUFFERS],
        env=environ | variable,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert (times - 0.5) * pages < int(found.stdout) < (times + 0.5) * pages


_NOT_FINITE = """
import os, pathlib
from gensupcon_jax.cluster import cpu_flags
cpu_flags.set_for_this_machine(os.environ, pathlib.Path("/no/devices"))
import jax, jax.numpy as jnp, numpy as np
operations = dict(
    relu=lambda x: jnp.maximum(2 * x + 1, 0),
    total=lambda x: x.sum(0),
    mean=lambda x: x.mean(1),
    largest=lambda x: x.max(1),
    variance=lambda x: (x * x).mean(0) - x.mean(0) ** 2,
    chosen=lambda x: jnp.where(x > 0, x, 0.0),
    root=lambda x: jax.lax.rsqrt(x * x + 1e-5),
    log_sum_exp=lambda x: jax.nn.logsumexp(x, 1),
    finite=lambda x: jnp.isfinite(x),
    clipped=lambda x: jnp.clip(x, -1, 1),
    product=lambda x: x.T @ x,
)
values = np.random.default_rng(0).normal(size=(512, 256)).astype(np.float32)
for bad in (None, np.nan, np.inf, -np.inf):
    wide = values.astype(np.float64)
    if bad is not None:
        wide[7, 9] = bad
    for name, operation in operations.items():
        found = np.asarray(jax.jit(operation)(wide.astype(np.float32)))
        with jax.enable_x64(True), jax.disable_jit():
            expected = np.asarray(operation(jnp.asarray(wide)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{name} with {bad}")
print("the same")
"""


@pytest.mark.slow
def test_values_that_are_not_finite_stay_so_with_the_flags():
    environ = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _NOT_FINITE], cwd=ROOT, capture_output=True, text=True, env=environ
    )
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr


def test_jax_accepts_the_flags_without_output():
    program = (
        "import os, pathlib, jax; from gensupcon_jax.cluster import cpu_flags;"
        "cpu_flags.set_for_this_machine(os.environ, pathlib.Path('/no/devices'));"
        "print(jax.jit(lambda x: x @ x)(jax.numpy.ones((2, 2))).sum(), os.environ['XLA_FLAGS'])"
    )
    environ = {"PATH": "/usr/bin:/bin"}  # of pytest's own, nothing
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"8.0 {FLAGS}\n", "")
