"""A disk whose writes never return, as that of a server that is gone: the watchdog ends the run, which resumes later."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from gensupcon_jax import main
from gensupcon_jax.run import train
from gensupcon_jax.store.checkpoint import Checkpoints, saved_steps
from tests.forking import Forked
from tests.running import ended, fields, results_of, rows_of, start, wait_for
from tests.store.test_disk import ONE_DEVICE

CHANGES = {"steps": 4, "checkpoint.every_steps": 2}


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


def freeze(disk):
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)


def train_until_a_save_hangs(disk, arguments):
    """What `gensupcon train` does on a disk that hangs from the second save on."""
    save = Checkpoints.save

    def save_on_it(checkpoints, step, *others):
        if step == 4:
            checkpoints.settle()
            freeze(disk)
        return save(checkpoints, step, *others)

    Checkpoints.save = save_on_it
    main.main(arguments)


def train_until_the_report_hangs(disk, arguments):
    """The same from the report on."""
    write = train._write_end

    def write_on_it(*arguments):
        freeze(disk)
        return write(*arguments)

    train._write_end = write_on_it
    main.main(arguments)


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
    reason="only root may freeze; cluster/test_watchdog.py has the same without",
)
@pytest.mark.parametrize(
    ("function", "limit", "hangs", "kept"),
    [
        (train_until_a_save_hangs, "--watchdog_saving_seconds=10", "(saving step 4|the last save, of step 4,)", [2]),
        (train_until_the_report_hangs, "--watchdog_report_seconds=3", "writing the report", [2, 4]),
    ],
)
def test_a_write_that_never_returns_is_named_and_the_run_resumes(small_disk, tmp_path, function, limit, hangs, kept):
    folder = small_disk / "run"
    arguments = ["--config=configs/digits.py", f"--workdir={folder}", *fields(CHANGES), limit]
    hanging = Forked(function, str(small_disk), arguments, environment=ONE_DEVICE)
    wait_for(lambda: "error: " in hanging.written()[1] or hanging.returncode is not None)
    subprocess.run(["fsfreeze", "--unfreeze", small_disk], check=True)  # before, the kernel does not let it go
    ((status, _, said),) = ended([hanging])
    assert status == 75, said
    hangs = f"{hangs} has taken more than {limit.partition('=')[2]} seconds; "
    assert re.search(rf"^{hangs}stacks of all threads:$", said, re.MULTILINE), said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(f"error: {hangs}start the same command again; it resumes from the newest checkpoint", line)
    assert saved_steps(folder / "checkpoints")[: len(kept)] == kept

    untouched = tmp_path / "untouched"
    outcomes = ended([start(folder, CHANGES), start(untouched, CHANGES)])
    assert [status for status, *_ in outcomes] == [0, 0], outcomes
    assert rows_of(folder) == rows_of(untouched)
    assert results_of(folder) == results_of(untouched)
