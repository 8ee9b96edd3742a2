"""time.json: the wall time of the starts of a run, and their sum."""

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.phases import PHASES
from gensupcon_jax.store.wall_time import TIME, bin_seconds, read_starts, step_bin, summed, write_starts


def start(first=None, last=None, bins=None, slowest=0.0, **seconds):
    return {
        "began": "2026-01-01T00:00:00+00:00",
        "seconds": dict.fromkeys(PHASES, 0.0) | seconds,
        "first_step": first,
        "last_step": last,
        "step_bins": {str(number): count for number, count in (bins or {}).items()},
        "slowest_step": slowest,
    }


def test_one_start():
    account = summed([start(0, 10, **{"import": 2.0, "compile": 3.0, "step": 15.0})])
    assert (account["wall"], account["starts"], account["goodput"]) == (20.0, 1, 75.0)
    assert list(account["seconds"]) == list(PHASES)


def test_steps_that_a_later_start_takes_again_are_lost():
    starts = [start(0, 10, step=20.0), start(4, 8, step=8.0), start(8, 12, step=8.0)]
    account = summed(starts)  # 6 of the first start's 10 steps, none of the second's
    assert account["seconds"]["lost"] == pytest.approx(12.0)
    assert account["seconds"]["step"] == pytest.approx(24.0)
    assert account["wall"] == pytest.approx(36.0) == pytest.approx(sum(account["seconds"].values()))
    assert account["goodput"] == pytest.approx(100 * 24 / 36)


def test_a_damaged_checkpoint_loses_the_steps_of_more_than_one_start():
    account = summed([start(0, 10, step=10.0), start(8, 12, step=4.0), start(5, 6, step=1.0)])
    assert account["seconds"]["lost"] == pytest.approx(5.0 + 4.0)


def test_a_start_that_ended_before_it_trained_loses_nothing():
    account = summed([start(0, 10, step=10.0), start(data=3.0), start(10, 20, step=10.0)])
    assert (account["seconds"]["lost"], account["seconds"]["data"], account["starts"]) == (0.0, 3.0, 3)


def test_percentiles_of_the_steps_of_all_starts():
    first = start(0, 90, {step_bin(0.1): 90}, 0.11)
    second = start(90, 100, {step_bin(0.5): 9, step_bin(2.0): 1}, 2.03)
    found = summed([first, second])["step_seconds"]
    assert found["p50"] == pytest.approx(0.1, rel=0.01)
    assert found["p95"] == pytest.approx(0.5, rel=0.01)
    assert found["max"] == 2.03


def test_without_a_second_step_there_is_no_time_of_steps():
    assert summed([start(0, 1)])["step_seconds"] is None
    assert summed([])["goodput"] == 0


@pytest.mark.parametrize("seconds", [1e-5, 0.0123, 1.0, 59.0, 4000.0])
def test_a_bin_is_one_percent_wide(seconds):
    assert bin_seconds(step_bin(seconds)) == pytest.approx(seconds, rel=0.0051)


def test_the_file_holds_the_starts(tmp_path):
    assert read_starts(tmp_path) == []
    starts = [start(0, 3, {step_bin(0.1): 2}, 0.1, step=1.0)]
    write_starts(tmp_path, starts)
    assert read_starts(tmp_path) == starts


@pytest.mark.parametrize("content", ["", "{", "[]", '{"starts": [1]}', '{"starts": [{"seconds": {}}]}', "\x00"])
def test_a_file_that_is_not_ours_is_one_line(tmp_path, content):
    (tmp_path / TIME).write_text(content)
    with pytest.raises(UserError, match=r"time\.json cannot be read .*remove it") as raised:
        read_starts(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "damage",
    [
        {"step_bins": {"a": 1}},
        {"step_bins": {"100000": 1}},  # more than a number can hold
        {"step_bins": {"5": "x"}},
        {"slowest_step": "x"},
        {"slowest_step": None},
        {"first_step": "q"},
        {"last_step": -1},
        {"seconds": dict.fromkeys(PHASES, 0.0) | {"data": None}},
        {"seconds": dict.fromkeys(PHASES, 0.0) | {"rest": 1.0}},
    ],
)
def test_a_value_that_no_start_has_is_one_line(tmp_path, damage):
    write_starts(tmp_path, [start(0, 3, {step_bin(0.1): 2}, 0.1) | damage])
    with pytest.raises(UserError, match=r"time\.json cannot be read .*remove it"):
        read_starts(tmp_path)
