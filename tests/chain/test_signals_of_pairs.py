"""Two joined processes, stopped while they start and after training by a signal to one or to both: one line each."""

import contextlib
import random
import re
import signal
import subprocess
import time

import pytest

from tests.running import ended, rows_of, start_several, wait_for

NUM_STEPS = 12
_LIMIT = 60  # on a loaded machine; benchmarks.signals --processes 2 measures the times
_NOTHING_LOST = r"SIG(INT|TERM): nothing is lost; the same command resumes"
_TOLD = r"process [01] stops because process [01] \(127\.0\.0\.1(:\d+)?\) has stopped: it was asked to stop"
_SAVED = rf"SIG(?:INT|TERM): saved step (\d+) of {NUM_STEPS}; the same command resumes from there"

# What there is when both have joined, when they have read the data, and when they compile.
STARTS = {
    "joined": lambda folder, both: (folder / "run.lock").exists(),
    "claimed": lambda folder, both: (folder / "config.json").exists(),
    "compiles": lambda folder, both: "compiling the training step" in both[0].written()[1] or trains(folder),
}


def trains(folder):
    """Whether the first step has been logged."""
    return (folder / "metrics.jsonl").exists() and bool(rows_of(folder))


def has_trained(folder, both):
    """Whether the last step is saved."""
    return (folder / "checkpoints" / f"{NUM_STEPS}").is_dir()


def has_resumed(folder, both):
    """Whether it goes on after the last step, with evaluation and report."""
    return f"resumes at step {NUM_STEPS}" in both[0].written()[1]


def wait_until(is_there, folder, both):
    """Until it is so; both must still run then."""
    wait_for(lambda: is_there(folder, both) or any(process.returncode is not None for process in both))
    assert is_there(folder, both), [process.written() for process in both]


def stopped(both, receivers, numbers):
    """(status, line) of each after these signals; a line says how it ended, and there is no other one of that kind."""
    for number in numbers:
        for own in receivers:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                both[own].send_signal(number)
    try:
        outcomes = ended(both, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{numbers} to {receivers}: {[process.written() for process in both]}")
    found = []
    for status, _, said in outcomes:
        lines = [line for printed in said.splitlines() for line in printed.split("\r")]
        last = [line for line in lines if re.match(r"(error|SIG|process \d)|.*(Traceback|Error|interrupted)", line)]
        assert len(last) == 1, outcomes
        found.append((status, *last))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("receivers", [[0], [1], [0, 1]])
def test_both_end_in_one_line_each_while_they_start(tmp_path, receivers):
    rng = random.Random(len(receivers) + receivers[0])
    for index, (instant, is_there) in enumerate(STARTS.items()):
        folder = tmp_path / instant
        both = start_several(folder)
        wait_until(is_there, folder, both)
        time.sleep(rng.uniform(0, 0.3))
        found = stopped(both, receivers, [(signal.SIGTERM, signal.SIGINT)[index % 2]] * (1 + (index == 2)))
        assert [status for status, _ in found] == [0, 0], found
        steps = [saved and saved[1] for saved in (re.fullmatch(_SAVED, line) for _, line in found)]
        if any(steps):  # the first step was quicker
            assert instant == "compiles" and steps[0] == steps[1], found
        else:
            assert any(re.fullmatch(_NOTHING_LOST, found[own][1]) for own in receivers), found
            assert all(re.fullmatch(f"{_NOTHING_LOST}|{_TOLD}", line) for _, line in found), found
        assert not (folder / "run.lock").exists()
    outcomes = ended(start_several(tmp_path / "claimed"))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes


@pytest.mark.slow
def test_both_end_in_one_line_each_while_they_evaluate_and_report(tmp_path):
    """Whoever is told by the other leaves neither a lock nor half a file; the same command ends the run."""
    rng, folder = random.Random(0), tmp_path / "run"
    for seconds, receivers, number in [(0, [1], signal.SIGTERM), (0.8, [0], signal.SIGINT), (2, [1], signal.SIGINT)]:
        both = start_several(folder)
        wait_until(has_trained if seconds == 0 else has_resumed, folder, both)
        time.sleep(seconds * rng.random())
        found = stopped(both, receivers, [number])
        assert [status for status, _ in found] == [0, 0], found
        assert all(re.fullmatch(f"{_NOTHING_LOST}|{_TOLD}|{_SAVED}", line) for _, line in found), found
        assert not (folder / "run.lock").exists()
        assert not list(folder.rglob("*.unfinished"))
        assert not (folder / "results.json").exists()
    outcomes = ended(start_several(folder))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    assert "report:" in outcomes[0][1]
