"""A disk whose writes never return, as that of a server that is gone: the watchdog ends the run, which resumes later."""

import os
import subprocess

import pytest

from gensupcon_jax import main
from gensupcon_jax.run import train
from gensupcon_jax.store.checkpoint import Checkpoints, saved_steps
from tests.forking import Forked
from tests.running import ended, fields, results_of, rows_of, start, wait_for
from tests.store.test_disk import ONE_DEVICE

CHANGES = {"steps": 4, "checkpoint.every_steps": 2}
LIMITS = ["--watchdog_saving_seconds=3", "--watchdog_report_seconds=3"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which the kernel can freeze."""
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    yield path
    subprocess.run(["fsfreeze", "--unfreeze", path], check=False, capture_output=True)
    subprocess.run(["umount", path], check=True)


def freezing(function, disk, number):
    """The function, whose call of this number finds the disk frozen."""
    calls = iter(range(1, 100))

    def call(*arguments, **settings):
        if next(calls) == number:
            subprocess.run(["fsfreeze", "--freeze", disk], check=True)
        return function(*arguments, **settings)

    return call


def train_until_the_disk_hangs(where, disk, arguments):
    """What `gensupcon train` does on a disk that hangs from the second save on, or from the report on."""
    if where == "save":
        Checkpoints.save = freezing(Checkpoints.save, disk, 2)
    else:
        train._write_end = freezing(train._write_end, disk, 1)
    main.main(arguments)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may freeze; cluster/test_watchdog.py has the same without")
@pytest.mark.parametrize(
    ("where", "hangs", "kept"),
    [("save", "the last save, of step 4,", [2]), ("report", "writing the report", [2, 4])],
)
def test_a_write_that_never_returns_is_named_and_the_run_resumes(small_disk, tmp_path, where, hangs, kept):
    folder = small_disk / "run"
    arguments = ["--config=configs/digits.py", f"--workdir={folder}", *fields(CHANGES), *LIMITS]
    hanging = Forked(train_until_the_disk_hangs, where, str(small_disk), arguments, environment=ONE_DEVICE)
    wait_for(lambda: "error: " in hanging.written()[1] or hanging.returncode is not None)
    subprocess.run(["fsfreeze", "--unfreeze", small_disk], check=True)  # before, the kernel does not let it go
    ((status, _, said),) = ended([hanging])
    assert status == 75, said
    assert f"{hangs} has taken more than 3 seconds; stacks of all threads:\n" in said
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        f"error: {hangs} has taken more than 3 seconds; start the same command again; it resumes from the newest checkpoint"
    ]
    assert saved_steps(folder / "checkpoints")[: len(kept)] == kept

    untouched = tmp_path / "untouched"
    outcomes = ended([start(folder, CHANGES), start(untouched, CHANGES)])
    assert [status for status, *_ in outcomes] == [0, 0], outcomes
    assert rows_of(folder) == rows_of(untouched)
    assert results_of(folder) == results_of(untouched)
