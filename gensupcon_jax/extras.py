"""What the extra `tensorflow` brings, and the sentences for an installation without it."""

import importlib.util
import os

from gensupcon_jax.errors import UserError

INSTALL_TENSORFLOW = 'pip install "gensupcon_jax[tensorflow]"'
_TENSORFLOW_MODULES = ("tensorflow", "tensorflow_datasets", "tensorboard", "clu", "cv2")


def missing_of_tensorflow() -> list[str]:
    """Which modules of the extra `tensorflow` are not installed; nothing is imported."""
    return [name for name in _TENSORFLOW_MODULES if importlib.util.find_spec(name) is None]


def require_tensorflow(found: str) -> None:
    """Raise UserError, which names the extra, where it is not installed; found: the setting that needs it."""
    missing = missing_of_tensorflow()
    if missing:
        raise UserError(
            f"{found}, which is read with the extra `tensorflow` ({', '.join(missing)} not installed); "
            f"{INSTALL_TENSORFLOW} installs it; allowed without it: digits, arrays (from Python)"
        )


def quiet_tensorflow() -> None:
    """Keep TensorFlow, once it is imported, from writing at start-up; what the user has set stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
