"""The cache of a data set: made once, made again where it is damaged, and done without where it cannot be written."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from gensupcon_jax.data.cache import cache_file, cached


def make(value, calls):
    calls.append(value)
    return {"classes": np.array([value, 2]), "problems": np.array(["", "cut off"], str)}


def classes(folder, value=1, calls=None, key="key"):
    return cached(folder, "a name/with:signs", key, lambda: make(value, [] if calls is None else calls))["classes"]


def test_arrays_are_made_once_for_a_key(tmp_path):
    calls = []
    assert classes(tmp_path / "new" / "folder", 1, calls).tolist() == [1, 2]
    again = classes(tmp_path / "new" / "folder", 5, calls)
    assert again.tolist() == [1, 2]
    again[0] = 9  # not a part of the file
    assert classes(tmp_path / "new" / "folder", 5, calls, key="another").tolist() == [5, 2]
    assert calls == [1, 5]
    assert sorted(path.name[:18] for path in (tmp_path / "new" / "folder").iterdir()) == ["a_name_with_signs-"] * 2


def test_without_a_folder_nothing_is_kept():
    calls = []
    assert [classes(None, value, calls).tolist() for value in (1, 5)] == [[1, 2], [5, 2]]


@pytest.mark.parametrize("damage", ["byte", "half", "empty", "text"])
def test_a_damaged_file_is_made_again_and_said(tmp_path, capsys, damage):
    classes(tmp_path)
    path = cache_file(tmp_path, "a name/with:signs", "key")
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    path.write_bytes({"byte": changed, "half": whole[:middle], "empty": b"", "text": b"not arrays"}[damage])
    assert classes(tmp_path, 5).tolist() == [5, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"{path} is damaged (its fingerprint does not match its content): the data are read again, and it is replaced"
    )
    assert classes(tmp_path, 7).tolist() == [5, 2]
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_made_is_done_without_and_said(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert [classes(tmp_path / "file" / "cache", value).tolist() for value in (1, 5)] == [[1, 2], [5, 2]]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"the cache {tmp_path / 'file' / 'cache'} cannot be written (")
        assert line.endswith("): this run does without it, and the next start reads the data again")


def test_a_read_only_folder_is_done_without_and_said(tmp_path, capsys):
    folder = tmp_path / "cache"
    folder.mkdir()
    for each in (tmp_path, *list(tmp_path.parents)[:3]):
        each.chmod(0o755)  # pytest's folders are of their owner alone
    with as_nobody(folder):
        found = classes(folder, 5)
    assert found.tolist() == [5, 2]
    assert capsys.readouterr().err.startswith(f"the cache {folder} cannot be written (Permission denied")
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_read_is_said(tmp_path, capsys):
    path = cache_file(tmp_path, "a name/with:signs", "key")
    path.mkdir()
    assert classes(tmp_path, 5).tolist() == [5, 2]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{path} cannot be read (Is a directory")
    assert second.startswith(f"the cache {tmp_path} cannot be written (Is a directory")


def test_a_full_disk_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    import gensupcon_jax.data.mapped_arrays as mapped_arrays

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_arrays, "fingerprint", full)
    assert classes(tmp_path, 5).tolist() == [5, 2]
    assert "cannot be written (No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path):
    name = cache_file(tmp_path, "a name/with:signs", "key").name
    old, new, other = (tmp_path / f".{each}.unfinished" for each in (f"{name}.1", f"{name}.2", "another.3"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 7200,) * 2)
    classes(tmp_path)
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


# Writes its own content over and over, and checks that what it reads is always one whole file of either process.
_WRITER = """
import sys
from pathlib import Path
import numpy as np
from gensupcon_jax.data.mapped_arrays import MappedArrays
from gensupcon_jax.data.cache import keep, read_kept_file
path, value = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(60):
    keep(path, MappedArrays({"images": np.full((500, 8, 8, 1), value, np.uint8)}, {"value": value}))
    kept = read_kept_file(path)
    assert (kept.arrays["images"] == kept.facts["value"]).all()
"""


def test_two_processes_may_build_it_at_once(tmp_path):
    path = tmp_path / "cache" / "some.arrays"
    command = [sys.executable, "-c", _WRITER, str(path)]
    started = [subprocess.Popen([*command, str(value)], stderr=subprocess.PIPE, text=True) for value in (3, 4)]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert (errors, [process.returncode for process in started]) == (["", ""], [0, 0])
    assert [each.name for each in path.parent.iterdir()] == ["some.arrays"]


class as_nobody:  # noqa: N801  (used as a function)
    """A read-only folder for the block, also where the tests run as root, whom no permission stops."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        self.folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)

    def __exit__(self, *_):
        if os.getuid() == 0:
            os.seteuid(0)
        self.folder.chmod(0o755)
