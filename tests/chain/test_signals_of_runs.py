"""40 real trainings get SIGINT or SIGTERM from their first instants to their end, once or twice: one line, nothing is lost."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests import QUICK_COMPILES, ROOT
from tests.running import command, ended, rows_of, start

STOPS = [signal.SIGINT, signal.SIGTERM]
NUM_STEPS = 12
_ENVIRONMENT = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {QUICK_COMPILES}", "JAX_PLATFORMS": "cpu"}
_LIMIT = 90  # on a loaded machine; benchmarks.signals measures the times


def launch(folder, **settings):
    """As a user types it, in a group of its own."""
    return subprocess.Popen(
        command(folder), cwd=ROOT, env=os.environ | _ENVIRONMENT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings,
    )  # fmt: skip


def check_end(folder, process, numbers):
    """It ended well: done, saved, or with nothing lost; one line says so, without a fault or a traceback."""
    ((status, _, said),) = ended([process], timeout=_LIMIT)
    assert "Traceback" not in said and "Fatal" not in said and "Exception" not in said, said
    last = said.splitlines()[-1] if said else ""
    if "interrupted" in last:  # a second SIGINT while it trained
        assert (status, numbers) == (1, [signal.SIGINT] * 2), said
    elif status == 0 and (folder / "results.json").exists():
        return
    else:
        assert status == 0, (status, said)
        saved = re.fullmatch(rf"SIG(?:INT|TERM): saved step (\d+) of {NUM_STEPS}; .*", last)
        assert saved or re.fullmatch(r"SIG(?:INT|TERM): nothing is lost; the same command resumes", last), said
        if saved:
            assert (folder / "checkpoints" / saved[1]).is_dir()
        assert sum(line.startswith("SIG") for line in said.splitlines()) == 1, said
    assert not list(folder.rglob("*.unfinished"))


def send(process, numbers, rng):
    for index, number in enumerate(numbers):
        if index:
            time.sleep(rng.uniform(0, 0.5))
        with contextlib.suppress(ProcessLookupError):  # it has ended
            process.send_signal(number)


@pytest.mark.slow
def test_ctrl_c_that_ends_the_reader_of_what_is_said_too_loses_no_step(tmp_path):
    """As of `train ... 2>&1 | tee log`, where the whole group gets it: first at a start, then while it trains."""
    changes = {"steps": 500, "checkpoint.every_steps": 1000, "evaluate.every_epochs": 0}
    for is_there in (tmp_path / "run.lock").exists, lambda: trained(tmp_path) > 2:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            command(tmp_path, changes), cwd=ROOT, env=os.environ | _ENVIRONMENT, stdout=writing, stderr=writing
        )
        os.close(writing)
        while not is_there():
            assert process.poll() is None, os.read(reading, 9999)
            time.sleep(0.02)
        os.close(reading)
        process.send_signal(signal.SIGINT)
        assert process.wait(_LIMIT) == 0
        assert not (tmp_path / "run.lock").exists()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def trained(folder):
    """How many rows have been logged."""
    return len(rows_of(folder)) if (folder / "metrics.jsonl").exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("num_signals", [1, 2])
def test_10_starts_are_stopped_before_they_train(tmp_path, num_signals):
    rng = random.Random(num_signals)
    for index in range(10):
        folder, numbers = tmp_path / f"{index}", [STOPS[index % 2]] * num_signals
        process = launch(folder)
        time.sleep(0.2 + 3.2 * (index + rng.random()) / 10)  # Python alone takes a tenth of a second
        send(process, numbers, rng)
        check_end(folder, process, numbers)


# What a run has when it compiles, trains, saves, evaluates, writes the report, ends.
INSTANTS = {
    "claimed": lambda folder: (folder / "config.json").exists(),
    "first step": lambda folder: (folder / "metrics.jsonl").exists(),
    "trains": lambda folder: len(rows_of(folder)) >= 3 if (folder / "metrics.jsonl").exists() else False,
    "saves": lambda folder: any(folder.glob("checkpoints/*")),
    "evaluates": lambda folder: (folder / "checkpoints" / str(NUM_STEPS)).is_dir(),
}


@pytest.mark.slow
@pytest.mark.parametrize("num_signals", [1, 2])
def test_10_runs_are_stopped_in_every_phase_and_resume(tmp_path, num_signals):
    rng = random.Random(num_signals)
    for index in range(10):
        phase = list(INSTANTS)[index % len(INSTANTS)]
        folder, numbers = tmp_path / str(index), [STOPS[index // len(INSTANTS)]] * num_signals
        process = start(folder)
        deadline = time.monotonic() + _LIMIT
        while not INSTANTS[phase](folder) and process.returncode is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.choice((0, 0.1, 0.5, 1.5)))
        if process.returncode is None:
            send(process, numbers, rng)
        check_end(folder, process, numbers)
    ((status, printed, said),) = ended([start(tmp_path / "9")])
    assert status == 0, said
    assert "report:" in printed
    assert [row["step"] for row in rows_of(tmp_path / "9")] == list(range(1, NUM_STEPS + 1))


@pytest.mark.slow
def test_ctrl_c_under_make_goes_to_the_whole_group(tmp_path):
    words = " ".join(f"'{word}'" for word in command(tmp_path / "run"))
    (tmp_path / "Makefile").write_text(f"digits:\n\t@cd {ROOT} && exec {words}\n")
    process = subprocess.Popen(
        ["make", "-f", tmp_path / "Makefile"], env=os.environ | _ENVIRONMENT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    ((_, _, said),) = ended([process], timeout=_LIMIT)  # make's own status after an interrupt is not ours
    assert "SIGINT: nothing is lost; the same command resumes" in said.splitlines()
    assert "Traceback" not in said


@pytest.mark.slow
def test_sigterm_to_a_launcher_ends_its_processes_while_they_start(tmp_path):
    words = command(tmp_path / "run")[3:]
    process = subprocess.Popen(
        [sys.executable, "launch/local.py", "--devices", "1", "--", *words], cwd=ROOT, env=os.environ | _ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(2)
    process.terminate()
    ((status, _, said),) = ended([process], timeout=_LIMIT)
    assert status == 0, said
    assert said.splitlines()[-1] == "SIGTERM: nothing is lost; the same command resumes"


@pytest.mark.slow
def test_in_a_notebook_the_handlers_stay_and_an_interrupt_ends_the_cell_alone(tmp_path):
    program = """
import os, signal, sys, threading, time
import gensupcon_jax as gsc
from gensupcon_jax import signals
from gensupcon_jax.configs import digits
from gensupcon_jax.run import train  # an interrupt inside an import is Python's own
before = signal.getsignal(signal.SIGINT)
threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    gsc.train_and_evaluate(digits.get_config(), sys.argv[1])
except gsc.RunStopped as stopped:
    print("cell:", stopped)
assert signals.owner() is None and signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
os._exit(sys.stdout.flush() or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"], cwd=ROOT, env=os.environ | _ENVIRONMENT, timeout=_LIMIT,
        capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"cell: SIGINT: (nothing is lost|saved step \d+ of \d+); .*\nKeyboardInterrupt\n", done.stdout)
