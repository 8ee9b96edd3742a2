"""Whole runs on a disk that fills up: they report it, keep the last intact checkpoint, and resume later."""

import os
import resource
import subprocess

import jax
import pytest

from gensupcon_jax import main
from gensupcon_jax.run import compiled
from gensupcon_jax.store.checkpoint import saved_steps
from tests import QUICK_COMPILES
from tests.forking import Forked
from tests.running import ended, fields, rows_of, start

# Every step is saved and kept, so that the disk fills up long before the end.
CHANGES = {"steps": 60, "checkpoint.every_steps": 1, "checkpoint.keep": 1000}
ONE_DEVICE = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {QUICK_COMPILES}"}


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
    assert "Traceback" not in said
    (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "start the same command again" in message
    kept = saved_steps(folder / "checkpoints")[-1]
    assert 1 <= kept < 60

    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    ((status, _, said),) = ended([start(folder, CHANGES)])
    assert status == 0, said
    assert f"resumes at step {kept} of 60" in said
    assert [row["step"] for row in rows_of(folder)] == list(range(1, 61))


def train_with_files_of_at_most(num_bytes, arguments):
    """What `gensupcon train` does with a limit of the kernel on the size of a file."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)  # programs are read, none is written in part
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    main.main(arguments)


@pytest.mark.slow
def test_a_report_for_which_there_is_no_space_is_one_line_and_written_later(tmp_path):
    folder = tmp_path / "run"
    arguments = ["--config=configs/digits.py", f"--workdir={folder}", *fields({"steps": 4})]
    limited = Forked(train_with_files_of_at_most, 150_000, arguments, environment=ONE_DEVICE)
    ((status, _, said),) = ended([limited])
    assert status == 1, said
    assert "Traceback" not in said
    (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: {folder}/report.html cannot be written (File too large; ")
    assert message.endswith(
        " are free); raise the limit of the size of a file (ulimit -f), or choose a disk that takes larger ones, and start the "
        "same command again"
    )
    assert saved_steps(folder / "checkpoints") == [4]
    assert not (folder / "results.json").exists()

    ((status, _, said),) = ended([start(folder, {"steps": 4})])
    assert status == 0, said
    assert "resumes at step 4 of 4" in said
    assert (folder / "report.html").stat().st_size > 150_000
    assert (folder / "results.json").exists()


def compile_two_programs(folder):
    """Into a folder whose files may have 500 bytes: too few for a program."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compiled.say_failures_once()
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    print(jax.jit(lambda x: x + 1)(1.0), jax.jit(lambda x: x * 3)(2.0))


def test_compiled_programs_that_cannot_be_kept_are_said_in_one_line(tmp_path):
    folder = tmp_path / "compiled"
    ((status, printed, said),) = ended([Forked(compile_two_programs, str(folder), environment=ONE_DEVICE)])
    assert (status, printed) == (0, "2.0 6.0\n")
    (line,) = said.splitlines()
    assert line.startswith(f"compiled programs cannot be kept in {folder} (File too large; ")
    assert line.endswith(" are free): this run does without, and the next start compiles them again")
    assert list(folder.glob("*-cache")) == []  # no half of a program, which each later start would try to read
