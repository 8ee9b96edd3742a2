"""Whole runs on a disk that fills up: they report it, keep the last intact checkpoint, and resume later."""

import os
import resource
import subprocess
import types
import warnings
import zlib

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


def compile_two_programs(folder, num_bytes=resource.RLIM_INFINITY):
    """Into a folder whose files may have so many bytes."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compiled.say_failures_once()
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    print(jax.jit(lambda x: x + 1)(1.0), jax.jit(lambda x: x * 3)(2.0))


def test_compiled_programs_that_cannot_be_kept_are_said_in_one_line(tmp_path):
    folder = tmp_path / "compiled"
    ((status, printed, said),) = ended([Forked(compile_two_programs, str(folder), 500, environment=ONE_DEVICE)])
    assert (status, printed) == (0, "2.0 6.0\n")
    (line,) = said.splitlines()
    assert line.startswith(f"compiled programs cannot be kept in {folder} (File too large; ")
    assert line.endswith(" are free): this run does without, and the next start compiles them again")
    assert list(folder.glob("*-cache")) == []  # no half of a program, which each later start would try to read


def no_program(_):
    return zlib.compress(b"0000 no program of XLA")


# What a full disk, a kill, or a worn disk leaves.
DAMAGE = {
    "empty": lambda content: b"",
    "a part": lambda content: content[: len(content) // 2],
    "a flipped bit": lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    "another content": no_program,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_programs_are_removed_with_one_line_and_kept_anew(tmp_path, damage):
    folder = tmp_path / "compiled"

    def start():
        ((status, printed, said),) = ended([Forked(compile_two_programs, str(folder), environment=ONE_DEVICE)])
        assert (status, printed) == (0, "2.0 6.0\n")
        return said

    assert start() == ""
    kept = {path: path.read_bytes() for path in folder.glob("*-cache")}
    assert len(kept) >= 2
    for path, content in kept.items():
        path.write_bytes(DAMAGE[damage](content))
    (line,) = start().splitlines()
    assert line.startswith(f"compiled programs in {folder} are damaged (")
    assert line.endswith("): they are removed, compiled again and kept anew")
    assert all(zlib.decompress(path.read_bytes()) for path in kept)
    assert start() == ""


def test_programs_that_lie_elsewhere_are_removed_only_where_their_files_are_damaged(tmp_path, capsys, monkeypatch):
    """In a folder that is shared with other programs, what XLA refuses may be of another version of it."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    compiled.say_failures_once()
    config = types.SimpleNamespace(jax_compilation_cache_dir=str(tmp_path))
    monkeypatch.setattr(compiled, "jax", types.SimpleNamespace(config=config))
    for name, content in (
        ("jit_f-1-cache", no_program(b"")),
        ("jit_f-2-cache", b""),
        ("jit_g-1-cache", no_program(b"")),
    ):
        (tmp_path / name).write_bytes(content)
    for name, kept in (("jit_f", {"jit_f-1-cache", "jit_g-1-cache"}), ("jit_g", {"jit_f-1-cache", "jit_g-1-cache"})):
        warnings.warn(
            f"Error reading persistent compilation cache entry for '{name}': error: no\n program", stacklevel=1
        )
        assert {path.name for path in tmp_path.iterdir()} == kept
    assert capsys.readouterr().err.splitlines() == [
        f"compiled programs in {tmp_path} are damaged (error: no program): they are removed, compiled again and kept anew",
        f"compiled programs cannot be read from {tmp_path} (error: no program): they are compiled again",
    ]
