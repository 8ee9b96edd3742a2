"""One small trained run for all tests of this wing."""

import jax
import pytest

from gensupcon_jax.run.train import train_and_evaluate
from tests.inference.photos import write_photos
from tests.tiny import tiny_config, tiny_dataset


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The workdir of a run on arrays of 8 x 8 gray pixels, with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_and_evaluate(tiny_config(), folder, tiny_dataset(), devices=jax.devices()[:2])
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of photos of every kind, and the workdir of a run on them."""
    root = write_photos(tmp_path_factory.mktemp("photos") / "trees")
    folder = root.parent / "run"
    train_and_evaluate(photos_config(root), folder, devices=jax.devices()[:2])
    return root, folder


def photos_config(root):
    """The config of a run on `write_photos`."""
    settings = {"dataset.name": f"folder:{root}", "dataset.image_size": 16, "batch_size": 16, "steps": 2}
    return tiny_config(**settings, **{"evaluate.linear_probe": False, "mix.kind": "none", "log_steps": 1})
