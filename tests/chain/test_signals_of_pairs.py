"""Two processes that have joined are stopped while they start, by a signal to one or to both: both end at once, in one line."""

import contextlib
import random
import re
import signal
import subprocess
import time

import pytest

from tests.running import ended, start_several

NUM_STEPS = 12
_LIMIT = 60  # on a loaded machine; benchmarks.signals --processes 2 measures the times
_NOTHING_LOST = r"SIG(INT|TERM): nothing is lost; the same command resumes"
_TOLD = r"process [01] stops because process [01] \(127\.0\.0\.1(:\d+)?\) has stopped: it was asked to stop"
_SAVED = rf"SIG(?:INT|TERM): saved step (\d+) of {NUM_STEPS}; the same command resumes from there"

# What there is when both have joined, when they have read the data, and when they compute together.
INSTANTS = {
    "joined": lambda folder, both: (folder / "run.lock").exists(),
    "claimed": lambda folder, both: (folder / "config.json").exists(),
    "met": lambda folder, both: all("is connected to 1 peer" in process.written()[0] for process in both),
}


def lines_of(said):
    """What a process said of its end: neither its progress nor what C++ says of connections."""
    lines = (line for printed in said.splitlines() for line in printed.split("\r"))
    return [line for line in lines if re.match(r"(error|SIG|process \d)|.*(Traceback|Error|interrupted)", line)]


@pytest.mark.slow
@pytest.mark.parametrize("receivers", [[0], [1], [0, 1]])
def test_both_end_in_one_line_each_while_they_start(tmp_path, receivers):
    rng = random.Random(len(receivers) + receivers[0])
    for index, (instant, is_there) in enumerate(INSTANTS.items()):
        folder = tmp_path / instant
        both = start_several(folder, devices=1)
        end = time.monotonic() + _LIMIT
        while not is_there(folder, both):
            assert time.monotonic() < end, [process.written() for process in both]
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        number, twice = (signal.SIGTERM, signal.SIGINT)[index % 2], index == 2
        for own in receivers * (1 + twice):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                both[own].send_signal(number)
        try:
            outcomes = ended(both, timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{instant}, {number.name} to {receivers}: {[process.written() for process in both]}")
        said = [lines_of(each[2]) for each in outcomes]
        assert [each[0] for each in outcomes] == [0, 0], outcomes
        assert [len(lines) for lines in said] == [1, 1], outcomes
        (first,), (second,) = said
        steps = [found and found[1] for found in (re.fullmatch(_SAVED, line) for line in (first, second))]
        if any(steps):  # the first step was quicker
            assert instant == "met" and steps[0] == steps[1], outcomes
            continue
        assert any(re.fullmatch(_NOTHING_LOST, said[own][0]) for own in receivers), outcomes
        assert all(re.fullmatch(f"{_NOTHING_LOST}|{_TOLD}", line) for line in (first, second)), outcomes
    outcomes = ended(start_several(tmp_path / "claimed", devices=1))
    assert [each[0] for each in outcomes] == [0, 0], outcomes
