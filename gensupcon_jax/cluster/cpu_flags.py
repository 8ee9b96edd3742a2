"""What jax is told on a machine without an accelerator, before it first looks for devices."""

import importlib.util
from collections.abc import MutableMapping
from pathlib import Path

import jax

# Files that the drivers of TPUs and of NVIDIA's (dxg: under Windows) and AMD's GPUs make.
_ACCELERATORS = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "dxg", "kfd")

# YNN, the library that XLA brings, computes matrix products, elementwise chains and sums: measured in docs/performance.md.
_YNN = "--xla_cpu_experimental_ynn_fusion_type=" + ",".join(
    f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("DOT", "ELTWISE", "REDUCE")
)
# By version of jax, what was measured with it: XLA ends the process for a flag that it does not know, and these may change.
_MEASURED = {(0, 10): _YNN, (0, 11): _YNN}


def flags_of(version: tuple[int, ...]) -> str:
    """XLA_FLAGS for a CPU under this version of jax; empty for one that was not measured."""
    return _MEASURED.get((version[0], version[1]), "")


def set_for_this_machine(environ: MutableMapping[str, str], devices: Path = Path("/dev")) -> None:
    """Set XLA_FLAGS where jax will compute on the CPU and the user has set none.

    Where the TPU compiler is installed (for `plan`) and no TPU is there, jax is also kept from looking for one: libtpu
    complains in four lines.
    """
    if not _computes_on_cpu(environ, devices):
        return
    if flags_of(jax.__version_info__):
        environ.setdefault("XLA_FLAGS", flags_of(jax.__version_info__))
    if importlib.util.find_spec("libtpu") is not None:
        jax.config.update("jax_platforms", "cpu")


def _computes_on_cpu(environ: MutableMapping[str, str], devices: Path) -> bool:
    """It was told to, or no driver of an accelerator is there."""
    platforms = environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not any(found for pattern in _ACCELERATORS for found in devices.glob(pattern))
