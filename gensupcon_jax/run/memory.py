"""Memory in use while a run trains: of the process, and of its first device where the device reports it."""

import os
import resource
import sys
from pathlib import Path

import jax

_STATM = Path("/proc/self/statm")  # of Linux


def memory_in_use() -> dict[str, float]:
    """Bytes, by their names in the metrics.

    train/process_memory: in RAM, or, where the system does not say it (macOS), the most so far.  train/device_memory: the most so
    far on this process's first device; CPUs do not report it.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    of_device = stats.get("peak_bytes_in_use", stats.get("bytes_in_use"))
    numbers = {"train/process_memory": float(_process_bytes())}
    return numbers | ({} if of_device is None else {"train/device_memory": float(of_device)})


def _process_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
