"""One small trained run for all tests of this wing."""

import pytest

from gensupcon_jax.run.train import train_and_evaluate
from tests.tiny import tiny_config, tiny_dataset


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The workdir of a run on arrays of 8 x 8 gray pixels, with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_and_evaluate(tiny_config(), folder, tiny_dataset())
    return folder
