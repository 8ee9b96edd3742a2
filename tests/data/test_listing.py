"""Progress of many images: rate and time left in a terminal, silence for few images outside of one."""

import sys

from gensupcon_jax.data.listing import progress_bar


def test_a_bar_shows_what_is_done_the_rate_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(100, "embedding", done=20) as bar:
        bar.update(10)
        bar.refresh()
        said = capsys.readouterr().err
    assert "embedding:  30%" in said and "30.0/100" in said
    assert "images/s" in said or " images]" in said or "s/ images" in said
    assert "<" in said.rpartition("[")[2]  # elapsed < left


def test_few_images_outside_of_a_terminal_have_no_bar(capsys):
    with progress_bar(100, "embedding") as bar:
        bar.update(100)
    assert capsys.readouterr().err == ""
    with progress_bar(100_000, "embedding"):
        pass
    assert "embedding" in capsys.readouterr().err
