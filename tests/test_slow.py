"""A line for what takes long, none for what is quick."""

import threading

import pytest

from gensupcon_jax.slow import said_if_slow


def test_what_takes_long_is_said_while_it_lasts():
    is_said, said = threading.Event(), []

    def say(text):
        said.append(text)
        is_said.set()

    with said_if_slow("compiling", say, seconds=0.01):
        assert is_said.wait(20)
    assert said == ["compiling"]


def test_what_is_quick_or_fails_at_once_is_not_said():
    said = []
    with said_if_slow("compiling", said.append, seconds=0.2):
        pass
    with pytest.raises(KeyError), said_if_slow("compiling", said.append, seconds=0.2):
        raise KeyError
    threading.Event().wait(0.4)
    assert said == []
