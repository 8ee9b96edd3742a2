"""launch/local.py with real training: several processes give the run of one, stop together, and resume."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests import QUICK_COMPILES, ROOT
from tests.running import ended, fields, free_port, rows_of, start


def launch(folder, *options, changes=None, **settings):
    """launch/local.py with two processes of two CPU devices, in a group of its own."""
    command = [sys.executable, "launch/local.py", "--processes", "2", "--devices", "2", *options]
    command += ["--", "--config", "configs/digits.py", "--workdir", str(folder), *fields(changes)]
    environment = {**os.environ, "XLA_FLAGS": QUICK_COMPILES} | settings
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_of_two_devices_give_the_trajectory_of_one_process(tmp_path):
    (alone,) = ended([start(tmp_path / "one", devices=4)])
    (launched,) = ended([launch(tmp_path / "two")])
    assert (alone[0], launched[0]) == (0, 0), launched[2]
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert [row["step"] for row in two] == list(range(1, 13))
    assert [row["train/loss"] for row in two] == pytest.approx([row["train/loss"] for row in one], rel=1e-5)
    assert json.loads((tmp_path / "two/results.json").read_text())["num_devices"] == 4
    assert "linear probe on frozen features" in launched[1]


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_within_a_minute_with_address_and_process(tmp_path):
    with socket.create_server(("", free_port())) as taken:
        port = taken.getsockname()[1]
        began = time.monotonic()
        ((status, _, said),) = ended([launch(tmp_path / "run", "--port", str(port))])
    assert time.monotonic() - began < 60
    assert status == 1
    assert f"error: process 0 cannot listen on port {port} of --coordinator_address 127.0.0.1:{port}" in said
    assert "+ process 0 of 2 ended with status 1\n" in said


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_and_the_next_launch_goes_on(tmp_path):
    long = {"steps": 400, "checkpoint.every_epochs": 1000}
    process = launch(tmp_path / "run", changes=long)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run/metrics.jsonl").exists() or len(rows_of(tmp_path / "run")) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal: the launcher and its group
    ((status, _, said),) = ended([process])
    assert status == 0, said
    saved = int(re.search(r"SIG\w+: saved step (\d+) of 400", said)[1])
    assert 3 <= saved < 400
    again = launch(tmp_path / "run", changes=long)
    while f"resumes at step {saved} of 400" not in (line := again.stderr.readline()):
        assert line, "it did not resume"
    again.terminate()
    ((status, _, said),) = ended([again])
    assert status == 0, said
