"""launch/local.py: processes that start, end and are asked to stop together."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT

LAUNCHER = ROOT / "launch/local.py"

# Stands in for gensupcon_jax.main: each test's trainer is a few lines.
PRELUDE = """
import os, signal, sys, time
from pathlib import Path
process_id = next((int(a.split("=")[1]) for a in sys.argv if a.startswith("--process_id=")), 0)
starts = Path(f"starts_{process_id}")
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
"""


def stand_in(folder, body):
    (folder / "gensupcon_jax").mkdir()
    (folder / "gensupcon_jax/__init__.py").touch()
    (folder / "gensupcon_jax/main.py").write_text(PRELUDE + body)


def start(folder, *options, arguments=("--config", "configs/digits.py")):
    command = [sys.executable, str(LAUNCHER), *options, "--", *arguments]
    # In a group of its own, so that a test may send what Ctrl-C sends.
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def run(folder, *options, **settings):
    process = start(folder, *options, **settings)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_each_process_gets_its_flags_devices_and_the_arguments(tmp_path):
    stand_in(
        tmp_path,
        "names = ('JAX_PLATFORMS', 'JAX_NUM_CPU_DEVICES')\n"
        "print(*sys.argv[1:], *(os.environ[name] for name in names), flush=True)",
    )
    status, stdout, stderr = run(tmp_path, "--processes", "2", "--devices", "3", "--port", "1234")
    flags = "--coordinator_address=127.0.0.1:1234 --num_processes=2 --process_id={}"
    assert status == 0
    assert stdout == f"{flags.format(0)} --config configs/digits.py cpu 3\n"  # the first process's, as it is
    assert f"\n[1] {flags.format(1)} --config configs/digits.py cpu 3\n" in stderr


def test_what_runs_is_said_as_a_shell_would_take_it(tmp_path):
    stand_in(tmp_path, "print(sys.argv[1:])")
    status, stdout, stderr = run(tmp_path, arguments=["--config", "a b.py"])
    assert (status, stdout) == (0, "['--config', 'a b.py']\n")
    said = re.fullmatch(r"\+ (.*)\n", stderr)[1]
    again = subprocess.run(said, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout == stdout


def test_when_one_fails_the_others_end_and_its_status_is_ours(tmp_path, monkeypatch):
    # The other one ignores SIGTERM, as a process does that waits for its lost partner in C++.
    stand_in(
        tmp_path,
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "Path(f'pid_{process_id}').write_text(str(os.getpid()))\n"
        "while process_id == 0: time.sleep(0.1)\n"
        "while not Path('pid_0').exists(): time.sleep(0.01)\n"
        "sys.exit(7)",
    )
    launcher = LAUNCHER.read_text().replace("GRACE_SECONDS = 15", "GRACE_SECONDS = 0.5")
    (tmp_path / "local.py").write_text(launcher)
    monkeypatch.setattr(sys.modules[__name__], "LAUNCHER", tmp_path / "local.py")
    status, _, stderr = run(tmp_path, "--processes", "2", "--devices", "1")
    assert status == 7
    assert "+ process 1 of 2 ended with status 7\n" in stderr
    assert not alive(int((tmp_path / "pid_0").read_text()))


def test_a_killed_process_has_the_status_that_a_shell_gives(tmp_path):
    stand_in(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    status, _, _ = run(tmp_path)
    assert status == 137


@pytest.fixture
def hangup_is_heard():
    """Tests under nohup hand on that SIGHUP is ignored, and the launcher rightly keeps that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_is_heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_every_process_once_and_ends_the_restarts(tmp_path, number):
    stand_in(
        tmp_path,
        "got = []\n"
        "for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(n, lambda n, frame: got.append(n))\n"
        "Path(f'ready_{process_id}').touch()\n"
        "while not got: time.sleep(0.02)\n"
        "time.sleep(0.3)\n"  # a second one would come by now
        "Path(f'got_{process_id}').write_text(' '.join(signal.Signals(n).name for n in got))\n"
        "sys.exit(5)",
    )
    process = start(tmp_path, "--processes", "2", "--devices", "1", "--max-restarts", "3")
    for index in (0, 1):
        wait_for(tmp_path / f"ready_{index}")
    os.killpg(process.pid, number)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == 5
    expected = "SIGINT" if number == signal.SIGINT else "SIGTERM"
    assert [(tmp_path / f"got_{index}").read_text() for index in (0, 1)] == [expected] * 2
    assert [(tmp_path / f"starts_{index}").read_text() for index in (0, 1)] == ["x"] * 2


def test_the_third_signal_ends_what_does_not_listen(tmp_path):
    stand_in(
        tmp_path,
        "for n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)\n"
        "Path('ready').touch()\n"
        "time.sleep(60)",
    )
    process = start(tmp_path)
    wait_for(tmp_path / "ready")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # equal signals that wait are one
    process.communicate(timeout=30)
    assert process.returncode == 137


def test_a_killed_launcher_leaves_nothing_running(tmp_path):
    stand_in(tmp_path, "Path('pid').write_text(str(os.getpid()))\nPath('ready').touch()\ntime.sleep(60)")
    process = start(tmp_path)
    wait_for(tmp_path / "ready")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while alive(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failure_starts_all_again_until_the_limit(tmp_path):
    stand_in(tmp_path, "sys.exit(3)")
    launcher = LAUNCHER.read_text().replace("RESTART_DELAY_SECONDS = 5", "RESTART_DELAY_SECONDS = 0")
    (tmp_path / "local.py").write_text(launcher)
    command = [sys.executable, "local.py", "--max-restarts", "2", "--", "--config", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert (tmp_path / "starts_0").read_text() == "xxx"
    assert done.stderr.count("starts again") == 2


def test_a_start_that_succeeds_is_the_last(tmp_path):
    stand_in(tmp_path, "sys.exit(len(starts.read_text()) < 2 and 3)")
    launcher = LAUNCHER.read_text().replace("RESTART_DELAY_SECONDS = 5", "RESTART_DELAY_SECONDS = 0")
    (tmp_path / "local.py").write_text(launcher)
    command = [sys.executable, "local.py", "--max-restarts", "9", "--", "--config", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "starts_0").read_text() == "xx"


NEED_DEVICES = "several processes need --devices 1 (or more, of the CPU) or --gpus 0,1 (their numbers)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "2"], "what to train is missing; put it after --, for example: -- --config configs/digits.py"),
        (["--processes", "0", "--", "x"], "--processes is 0; allowed: a whole number from 1"),
        (["--devices", "0", "--", "x"], "--devices is 0; allowed: a whole number from 1"),
        (["--max-restarts", "-1", "--", "x"], "--max-restarts is -1; allowed: a whole number from 0"),
        (["--processes", "2", "--", "x"], NEED_DEVICES),
        (["--processes", "2", "--gpus", "all", "--", "x"], NEED_DEVICES),
        (["--processes", "4", "--gpus", "0,1", "--", "x"], "2 GPUs cannot be shared out evenly over --processes 4"),
        (["--processes", "2", "--gpus", "0,1,2", "--", "x"], "3 GPUs cannot be shared out evenly over --processes 2"),
        (["--gpus", "0;1", "--", "x"], "--gpus is '0;1'; allowed: all, or numbers like 0,1,2,3"),
        (["--gpus", "0", "--devices", "2", "--", "x"], "--devices are of the CPU; leave out --devices or --gpus"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(options, message):
    done = subprocess.run([sys.executable, LAUNCHER, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")
