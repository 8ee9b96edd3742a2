"""The steps that --profile names."""

import argparse
from pathlib import Path

import pytest
from etils import epath

from gensupcon_jax.errors import UserError
from gensupcon_jax.run.profiled_steps import Wanted, steps_of, wanted_steps
from gensupcon_jax.run.profiling import Profiler


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", Wanted(None, 5)), ("20:25", Wanted(20, 6)), ("7:7", Wanted(7, 1)), (" 3 ", Wanted(None, 3))],
)
def test_a_number_or_a_range(text, expected):
    assert wanted_steps(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "0:3", "a", "3:", ":3", "1:2:3", "2.5", "99999999999"])
def test_anything_else_is_refused(text):
    with pytest.raises(
        argparse.ArgumentTypeError, match="allowed: a number of steps, such as 5, or the first and the last"
    ):
        wanted_steps(text)


def test_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="whose last step is before the first"):
        wanted_steps("9:8")


def test_a_number_leaves_out_the_first_two_steps_of_the_start():
    assert steps_of(Wanted(None, 5), 0, 100, Path("run")) == range(3, 8)
    assert steps_of(Wanted(None, 5), 40, 100, Path("run")) == range(43, 48)
    assert steps_of(Wanted(1, 2), 0, 2, Path("run")) == range(1, 3)


@pytest.mark.parametrize(
    ("wanted", "done", "message"),
    [
        (Wanted(99, 3), 0, "--profile is 99:101; allowed: this start takes the steps 1 to 100"),
        (Wanted(99, 3), 20, "--profile is 99:101; allowed: this start takes the steps 21 to 100"),
        (
            Wanted(None, 99),
            0,
            "--profile is 99; allowed: the first 2 of a start are left out, and this start takes the steps 1 to 100",
        ),
        (Wanted(99, 3), 100, "--profile is 99:101, but run has all its 100 steps; choose another --workdir"),
    ],
)
def test_steps_that_the_run_does_not_have_are_one_line(wanted, done, message):
    with pytest.raises(UserError) as raised:
        steps_of(wanted, done, 100, Path("run"))
    assert str(raised.value) == message


def test_the_same_command_resumes_without_the_steps_that_are_done():
    folder = Path("run")
    assert list(steps_of(Wanted(20, 6), 22, 100, folder)) == [23, 24, 25]
    assert list(steps_of(Wanted(20, 6), 25, 100, folder)) == []
    assert list(steps_of(Wanted(5, 2), 100, 100, folder)) == []
    assert list(steps_of(Wanted(None, 9), 90, 100, folder)) == []
    assert list(steps_of(Wanted(None, 9), 100, 100, folder)) == []


def test_object_storage_is_refused():
    with pytest.raises(UserError, match=r"local folders only, and the workdir is gs://bucket/run; leave it out"):
        steps_of(Wanted(3, 2), 0, 100, epath.Path("gs://bucket/run"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "profile").write_text("")
    profiler = Profiler(range(1, 2), tmp_path, print)
    with pytest.raises(UserError, match=r"profile cannot be written \(File exists\)"), profiler, profiler.step(1):
        raise AssertionError
