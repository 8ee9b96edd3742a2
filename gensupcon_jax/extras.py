"""The packages of the extra `tensorflow`, and the messages if they are not installed."""

import importlib.util
import os

from gensupcon_jax.errors import UserError

INSTALL_TENSORFLOW = 'pip install "gensupcon_jax[tensorflow]"'
_TENSORFLOW_MODULES = ("tensorflow", "tensorflow_datasets", "tensorboard", "clu", "cv2", "simplejpeg")


def missing_of_tensorflow() -> list[str]:
    """The modules of the extra `tensorflow` that are not installed; imports nothing."""
    return [name for name in _TENSORFLOW_MODULES if importlib.util.find_spec(name) is None]


def require_tensorflow(found: str) -> None:
    """Raise UserError that names the extra if it is not installed; found: the setting that needs it."""
    missing = missing_of_tensorflow()
    if missing:
        raise UserError(
            f"{found}, which is read with the extra `tensorflow` ({', '.join(missing)} not installed); "
            f"{INSTALL_TENSORFLOW} installs it; allowed without it: digits, arrays (from Python)"
        )


def quiet_tensorflow() -> None:
    """Silence the start-up messages of TensorFlow; settings of the user are kept."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # jax sets 1 where it is imported first
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
