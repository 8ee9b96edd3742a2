"""Eight CPU devices, quick compiles and shape checks by name: set before jax and the package are first imported."""

import ctypes
import os
import signal
from pathlib import Path

import pytest

from tests import QUICK_COMPILES

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        QUICK_COMPILES,
    )
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# A shell that starts the tests in the background has them ignore SIGINT, and so would every process that they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gensupcon_jax" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from jaxtyping import install_import_hook  # noqa: E402  (after the environment is set)

install_import_hook("gensupcon_jax", "beartype.beartype")

from tests.browser import browser  # noqa: E402, F401  (a fixture)


@pytest.fixture(autouse=True, scope="module")
def small_memory():
    """After a file, free memory goes back to the machine, and where much is left, compiled programs too."""
    yield
    import jax  # at the top it would be before the hook

    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim") and _resident_gib() > 2:  # of glibc; it costs a tenth of a second
        libc.malloc_trim(0)
        if _resident_gib() > 3:
            jax.clear_caches()
            libc.malloc_trim(0)


def _resident_gib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
