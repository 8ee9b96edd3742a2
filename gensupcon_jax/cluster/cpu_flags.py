"""Settings of jax and of the memory allocator on a machine without an accelerator, before jax initializes its devices."""

import ctypes
import importlib.util
from collections.abc import MutableMapping
from pathlib import Path

import jax

# Device files of TPUs, of NVIDIA's (dxg: under Windows) and of AMD's GPUs.
_ACCELERATORS = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "dxg", "kfd")

# XLA's library YNN computes matrix products, elementwise operations and sums: measured in docs/performance.md.
_YNN = "--xla_cpu_experimental_ynn_fusion_type=" + ",".join(
    f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("DOT", "ELTWISE", "REDUCE")
)
# Flags measured with each version of jax: XLA ends the process for an unknown flag, and these flags may change.
_MEASURED = {(0, 10): _YNN, (0, 11): _YNN}


# Of glibc's mallopt: the most buffers that are mapped each by itself, the free bytes that go back to the system, and the number
# of heaps. By default every large buffer of a step is mapped anew, and its pages are cleared: measured in docs/performance.md.
_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8
_ALLOCATOR_VARIABLES = (
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_ARENA_MAX",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
)


def flags_of(version: tuple[int, ...]) -> str:
    """XLA_FLAGS for a CPU under this version of jax; empty for versions that were not measured."""
    return _MEASURED.get((version[0], version[1]), "")


def set_for_this_machine(environ: MutableMapping[str, str], devices: Path = Path("/dev")) -> None:
    """Set XLA_FLAGS if jax will compute on the CPU and the user has not set them, and keep freed memory.

    If the TPU compiler is installed (for `plan`) but there is no TPU, jax is also kept from looking for one, as libtpu
    would print four lines of warnings.
    """
    if not _computes_on_cpu(environ, devices):
        return
    if not any(name in environ for name in _ALLOCATOR_VARIABLES):
        keep_freed_memory()
    if flags_of(jax.__version_info__):
        environ.setdefault("XLA_FLAGS", flags_of(jax.__version_info__))
    if importlib.util.find_spec("libtpu") is not None:
        jax.config.update("jax_platforms", "cpu")


def keep_freed_memory() -> None:
    """Have glibc keep the memory of large buffers for the next step; without effect for other C libraries."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_ARENA_MAX, 1)


def _computes_on_cpu(environ: MutableMapping[str, str], devices: Path) -> bool:
    """Whether JAX_PLATFORMS requests it, or there is no driver of an accelerator."""
    platforms = environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not any(found for pattern in _ACCELERATORS for found in devices.glob(pattern))
