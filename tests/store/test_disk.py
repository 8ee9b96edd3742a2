"""A disk that fills up during training: the run reports it, keeps the last intact checkpoint, and resumes later."""

import os
import subprocess

import pytest

from gensupcon_jax.store.checkpoint import saved_steps
from tests.running import ended, rows_of, start

# Every step is saved and kept, so that the disk fills up long before the end.
CHANGES = {"steps": 60, "checkpoint.every_steps": 1, "checkpoint.keep": 1000}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount; test_checkpoint.py has the same without a mount")
def test_a_full_disk_ends_the_run_with_its_last_intact_checkpoint(small_disk):
    folder = small_disk / "run"
    ((status, _, said),) = ended([start(folder, CHANGES)])
    assert status == 1, said
    # tensorstore's threads may also complain about a closed event loop, before or after it.
    (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "start the same command again" in message
    kept = saved_steps(folder / "checkpoints")[-1]
    assert 1 <= kept < 60

    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    ((status, _, said),) = ended([start(folder, CHANGES)])
    assert status == 0, said
    assert f"resumes at step {kept} of 60" in said
    assert [row["step"] for row in rows_of(folder)] == list(range(1, 61))
