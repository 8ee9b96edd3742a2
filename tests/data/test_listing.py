"""Progress of what takes longer than 2 s: rate and time left in a terminal, a line now and then outside of one."""

import sys

import pytest
from tqdm import tqdm

from gensupcon_jax.data.listing import progress_bar, with_progress


def test_a_bar_shows_what_is_done_the_rate_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(100, "embedding", done=20) as bar:
        bar.update(10)
        bar.refresh()
        said = capsys.readouterr().err
    assert "embedding:  30%" in said and "30/100" in said
    assert "images/s" in said or " images]" in said or "s/ images" in said
    assert "<" in said.rpartition("[")[2]  # elapsed < left


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_takes_longer_than_2_s_says_so(is_terminal, monkeypatch, capsys):
    """At which seconds the bar is drawn: in a terminal often, in a log once every 15 s."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    drawn = []
    with progress_bar(100_000, "embedding") as bar:
        for second in (1, 1.9, 2.1, 3, 10, 18):
            bar._time = lambda now=bar.start_t + second: now
            bar.update(1000)
            if "embedding" in capsys.readouterr().err:
                drawn.append(second)
    assert drawn == ([2.1, 3, 10, 18] if is_terminal else [2.1, 18])


def test_a_log_gets_whole_lines_and_nothing_that_erases(monkeypatch, capsys):
    """The line that is said next, by the program or by this bar, begins at the left."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with progress_bar(1000, "embedding") as bar:
        for second in (3, 20):
            bar._time = lambda now=bar.start_t + second: now
            bar.update(100)
            tqdm.write("a sentence", file=sys.stderr)
    lines = capsys.readouterr().err.split("\n")
    assert [line.split(":")[0] for line in lines] == ["embedding", "a sentence", "embedding", "a sentence", ""]
    assert "100/1000" in lines[0] and "200/1000" in lines[2]
    assert not any("\r" in line or line != line.strip() for line in lines)


def test_what_is_done_at_once_is_silent(monkeypatch, capsys):
    for is_terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with progress_bar(100_000, "embedding") as bar:
            bar.update(100_000)
        assert list(with_progress(range(5), 5, "reading")) == [0, 1, 2, 3, 4]
        assert capsys.readouterr().err == ""
