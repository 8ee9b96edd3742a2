"""Progress is shown as a bar in a terminal, and as plain lines elsewhere."""

import sys
import time

import pytest

from gensupcon_jax.run.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_show_rate_time_left_and_notes(capsys, clock):
    progress = Progress(start_step=10, end_step=20, batch_size=32)
    progress.advance()  # compiles for a minute: left out of the rate
    progress.show(11, loss="3.21")
    for _ in range(4):
        progress.advance()
    clock[0] += 2.0
    progress.show(15, loss="2.50")  # too soon after the last line
    progress.show(15, force=True, **{"k-NN": "90.00 %"})
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "step 11/20  loss 3.21",
        "step 15/20  64 images/s  00:02 left  loss 2.50  k-NN 90.00 %",
    ]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(start_step=0, end_step=2, batch_size=32)
    progress.show(1, loss="3.21")
    progress.advance()
    progress.say("a line above it")
    progress.close()
    shown = capsys.readouterr().err
    assert "a line above it\n" in shown
    assert "50%" in shown
    assert "loss=3.21" in shown
