"""Runs that differ only in the seed are one group."""

import math

import pytest

from gensupcon_jax.compare.groups import grouped
from gensupcon_jax.compare.runs import read_runs
from tests.compare.workdirs import make_run


def groups_of(*folders):
    return grouped(read_runs(folders))


def test_only_the_seed_may_differ(tmp_path):
    found = groups_of(
        make_run(tmp_path / "plain_seed1", seed=1),
        make_run(tmp_path / "mixup", mix={"kind": "mixup"}),
        make_run(tmp_path / "plain_seed2", seed=2),
    )
    assert [(group.name, [run.seed for run in group.runs]) for group in found] == [("plain", [1, 2]), ("mixup", [0])]


def test_the_same_seed_again_is_another_group(tmp_path):
    found = groups_of(*(make_run(tmp_path / f"run{number}", seed=number % 2) for number in range(3)))
    assert [[run.name for run in group.runs] for group in found] == [["run0", "run1"], ["run2"]]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mixup_seed0", "mixup_seed1"], "mixup"),
        (["lr0.1-s1", "lr0.1-s12"], "lr0.1"),
        (["class0", "class1"], "class"),
        (["first", "second"], "first and 1 more"),
        (["0", "1", "2"], "0 and 2 more"),
    ],
)
def test_the_name_of_a_group(tmp_path, names, expected):
    found = groups_of(*(make_run(tmp_path / name, seed=seed) for seed, name in enumerate(names)))
    assert [group.name for group in found] == [expected]


def test_groups_with_the_same_beginning_have_other_names(tmp_path):
    folders = [make_run(tmp_path / f"a_{seed}", seed=seed) for seed in (0, 1)]
    folders += [make_run(tmp_path / f"a_{seed + 2}", seed=seed, epochs=9.0) for seed in (0, 1)]
    assert [group.name for group in groups_of(*folders)] == ["a_0 and 1 more", "a_2 and 1 more"]


def test_mean_and_deviation_over_seeds(tmp_path):
    (group,) = groups_of(*(make_run(tmp_path / f"a{seed}", seed=seed, linear=range(2 * seed)) for seed in range(3)))
    assert group.accuracies("last", "linear") == {0: 100.0, 1: 98.0, 2: 96.0}
    assert group.spread("last", "linear") == (98.0, 2.0, 3)
    assert group.spread("last", "classifier") is None


def test_one_run_has_no_deviation(tmp_path):
    group, _ = groups_of(make_run(tmp_path / "a"), make_run(tmp_path / "b", epochs=1.0))
    assert group.spread("last", "knn").mean == 100.0 and math.isnan(group.spread("last", "knn").deviation)


def test_runs_of_two_versions_are_one_group(tmp_path):
    (group,) = groups_of(make_run(tmp_path / "a0"), make_run(tmp_path / "a1", seed=1, batch_size=1024))
    assert [run.seed for run in group.runs] == [0, 1]
