"""Evidence: plans, the order of runs, what an interval says, and that the committed page is made from the committed lines."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence import __main__ as command
from benchmarks.evidence import data, further, lines, page, plans, runs, schedule
from benchmarks.evidence.comparisons import Difference, difference_of_images, difference_of_numbers, in_words, sentence
from benchmarks.evidence.plans import Wanted
from gensupcon_jax.configs import fields
from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.errors import UserError

TINY = """
title = "Tiny"
question = "Which?"
recipe = "digits"
images = 40
budgets = [2, 4]
seeds = [0, 1]

[fields]
batch_size = 40
"model.width" = 8

[measures]
linear_top1 = "linear probe"

[methods.teacher]
title = "the teacher"
fields = { objective = "cross_entropy", "augment.num_views" = 1, "mix.kind" = "none" }
rates = [0.1, 0.2]

[methods.student]
title = "the student"
fields = { "teacher.allow_poor" = true, "mix.kind" = "none" }
teacher = "teacher"
teacher_epochs = 2

[[comparisons]]
first = "student"
second = "teacher"
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.setattr(plans, "FOLDER", tmp_path)
    return plans.read_plan("tiny")


def line(wanted, score, correct=None, validation=None):
    found = {
        "plan": "p",
        **wanted._asdict(),
        "scores": {"linear_top1": score},
        "seconds": {"training": 1.0, "all": 3.0},
    }
    found["scores"]["linear_validation_top1"] = score if validation is None else validation
    correct = {} if correct is None else {"linear_top1": lines.packed(np.asarray(correct, bool))}
    return found | {"correct": correct, "num_test": 8}


@pytest.mark.parametrize("name", plans.names())
def test_every_plan_is_readable_and_names_fields_and_recipes_that_exist(name):
    plan = plans.read_plan(name)
    for method in plan.methods.values():
        assert set(plan.fields) | set(method.fields) <= set(fields.FIELDS)
        assert method.data in data.PREPARATIONS
        assert method.teacher_function in (None, *data.TEACHERS)
        assert (method.fields.get("teacher.kind") == "callable") == (method.teacher_function is not None)
    for method in plan.methods:
        runs.config_of(plan, Wanted(method, plan.budgets[0], 0, 0.1), None)
    assert {each.measure for each in plan.comparisons} <= set(plan.measures)


def test_an_unknown_method_or_key_of_a_plan_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "FOLDER", tmp_path)
    (tmp_path / "bad.toml").write_text(TINY.replace('second = "teacher"', 'second = "pupil"'))
    with pytest.raises(UserError, match="names the method 'pupil'; allowed: teacher, student"):
        plans.read_plan("bad")
    (tmp_path / "bad.toml").write_text(TINY.replace("seeds =", "seed ="))
    with pytest.raises(UserError, match=r"bad.toml: unknown \['seed'\], missing \['seeds'\]"):
        plans.read_plan("bad")
    with pytest.raises(UserError, match="there is no plan 'good'; allowed: bad"):
        plans.read_plan("good")


def test_rates_come_first_and_the_best_on_validation_is_chosen(tiny):
    tries = [Wanted("teacher", 2, 0, 0.1), Wanted("teacher", 2, 0, 0.2)]
    assert [run for run in schedule.missing(tiny, {}) if run.method == "teacher"] == tries
    found = {tries[0]: line(tries[0], 90.0, validation=50.0), tries[1]: line(tries[1], 10.0, validation=60.0)}
    assert schedule.chosen_rate(tiny, "teacher", {tries[0]: found[tries[0]]}) is None
    assert schedule.chosen_rate(tiny, "teacher", found) == 0.2  # not the better one on test images
    left = [run for run in schedule.missing(tiny, found) if run.method == "teacher"]
    assert left == [Wanted("teacher", 2, 1, 0.2), Wanted("teacher", 4, 0, 0.2), Wanted("teacher", 4, 1, 0.2)]
    assert schedule.teacher_of(tiny, Wanted("student", 4, 1, 0.2), found) == Wanted("teacher", 2, 1, 0.2)
    assert schedule.teacher_of(tiny, Wanted("student", 4, 1, 0.2), {}) is None


def test_runs_whose_rate_is_not_chosen_yet_are_planned_too(tiny):
    assert len(schedule.planned(tiny, {})) == 9  # 1 further rate, and 2 methods x 2 budgets x 2 seeds
    tries = plans.rate_tries(tiny, "teacher")
    found = {tries[0]: line(tries[0], 90.0)}
    assert "; 8 of the planned runs are missing" in page.page_of([page.Table(tiny, found.values())])
    found |= {tries[1]: line(tries[1], 95.0)}
    assert len(set(schedule.planned(tiny, found)) - set(found)) == 7


def test_correct_answers_are_packed_without_loss():
    correct = np.random.default_rng(0).random(1001) < 0.8
    assert (lines.unpacked(lines.packed(correct), 1001) == correct).all()


def test_the_difference_of_equal_runs_is_0_and_of_a_better_one_excludes_it():
    same = [np.array([True, False] * 50)] * 3
    assert difference_of_images(same, same)[:3] == (0.0, 0.0, 0.0)
    better = [np.ones(100, bool)] * 3
    found = difference_of_images(better, same)
    assert found.value == 50.0 and 35 < found.low < 45 and 55 < found.high < 65 and found.is_shown()
    numbers = difference_of_numbers([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    assert np.allclose(numbers[:3], (2.0, 2.0 - 4.3027 / 3**0.5, 2.0 + 4.3027 / 3**0.5), atol=1e-3)
    assert not difference_of_numbers([2.0], [1.0]).is_shown()


def test_a_sentence_says_what_the_interval_says():
    assert (
        sentence("A", "B", "k-NN", Difference(1.0, 0.5, 1.5, 3))
        == "A is better than B in k-NN (A minus B: +1.00 [+0.50, +1.50], 3 seeds)"
    )
    assert sentence("A", "B", "k-NN", Difference(-1.0, -1.5, -0.5, 1)).startswith("B is better than A in k-NN")
    assert sentence("A", "B", "error", Difference(-1.0, -1.5, -0.5, 3), lower_is_better=True).startswith(
        "A is better than B"
    )
    assert sentence("A", "B", "k-NN", Difference(1.0, -0.1, 2.0, 3)).startswith(
        "no difference is shown between A and B"
    )


def test_a_pair_of_methods_at_all_budgets_is_one_sentence():
    found = [
        (50, Difference(-1.0, -1.5, -0.5, 3)),
        (150, Difference(0.2, -0.1, 0.5, 3)),
        (450, Difference(2.0, 1.5, 2.5, 3)),
        (1350, Difference(2.5, 1.5, 3.5, 3)),
    ]
    assert in_words("A", "B", found, lower_is_better=False) == (
        "A is worse than B at 50 epochs (-1.00), not told apart from B at 150 epochs, "
        "better than B at 450 epochs (+2.00) and 1350 epochs (+2.50)"
    )
    assert in_words("A", "B", found[:1], lower_is_better=True) == "A is better than B at 50 epochs (-1.00)"


def test_the_page_begins_with_what_is_shown_and_what_is_not(tiny):
    better, same = np.ones(8, bool), np.array([True, False] * 4)
    tries = plans.rate_tries(tiny, "teacher")
    runs = [*tries, *(Wanted("teacher", budget, seed, 0.1) for budget in (2, 4) for seed in (0, 1))]
    students = [Wanted("student", budget, seed, 0.2) for budget in (2, 4) for seed in (0, 1)]
    found = [line(run, 50.0, same, validation=1.0 - run.rate) for run in runs]
    found += [line(run, 100.0, better if run.budget == 4 else same) for run in students]
    text = page.page_of([page.Table(tiny, found)])
    short = text[text.index("## In short") : text.index("## Tiny")]
    assert short == (
        "## In short\n\n**Tiny**\n\n- The student is not told apart from the teacher at 2 epochs, "
        "better than the teacher at 4 epochs (+50.00), in linear probe.\n\n"
    )
    assert "| the student minus the teacher | +0.00 [+0.00, +0.00] | **+50.00 [" in text
    equal = [line(Wanted(*run[:4]), 50.0, same, validation=1.0 - run.rate) for run in [*runs, *students]]
    assert "- No difference is shown between the student and the teacher (linear probe)." in page.page_of(
        [page.Table(tiny, equal)]
    )


@pytest.mark.parametrize("name", plans.names())
def test_networks_of_another_plan_are_trained_with_the_same_settings(name):
    plan = plans.read_plan(name)
    if plan.networks_of is None:
        assert plans.workdir_of(plan, Wanted("m", 2, 0, 0.1), Path("r")) == Path(f"r/{name}/m_2_rate0.1_seed0")
        return
    other = plans.read_plan(plan.networks_of)
    assert (plan.recipe, plan.images, plan.fields) == (other.recipe, other.images, other.fields)
    for method in set(plan.methods) & set(other.methods):
        mine, theirs = plan.methods[method], other.methods[method]
        assert (mine.variant, mine.fields, mine.data, mine.teacher) == (
            theirs.variant,
            theirs.fields,
            theirs.data,
            theirs.teacher,
        )


def test_images_are_drawn_evenly_by_the_seed():
    classes = np.repeat(np.arange(4), 25)
    first, second = data.drawn_per_class(classes, 10, 0), data.drawn_per_class(classes, 10, 1)
    assert np.bincount(classes[first]).tolist() == [3, 3, 2, 2]
    assert first.tolist() == data.drawn_per_class(classes, 10, 0).tolist() != second.tolist()


def test_placebos_and_unlabeled_images():
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), np.uint8)
    dataset = from_arrays(images, np.arange(200) % 4)
    shuffled, subset = data.shuffled_labels(dataset, 40, 0), data.labeled_subset(dataset, 40, 0)
    assert (shuffled.train.images == subset.train.images).all()
    assert np.bincount(shuffled.train.classes).tolist() == np.bincount(subset.train.classes).tolist()
    assert (shuffled.train.classes != subset.train.classes).sum() > 20
    assert data.others_unlabeled(dataset, 40, 0).train.is_labeled.sum() == 40


def test_the_teacher_without_knowledge_teaches_its_run(tmp_path, monkeypatch):
    def caught(config, *_, teacher_fn, **__):
        found.append((config.teacher.kind, teacher_fn))
        raise InterruptedError

    found = []
    monkeypatch.setattr(runs, "train_and_evaluate", caught)
    monkeypatch.setattr(runs, "dataset_of", lambda *_: None)
    plan = plans.read_plan("placebos")
    for method in ("uniform_teacher", "genscl"):
        with pytest.raises(InterruptedError):
            runs.line_of(plan, Wanted(method, 50, 0, 0.5), None, None, tmp_path)
    assert found == [("callable", data.uniform), ("none", None)]
    assert (data.uniform(np.ones((3, 8, 8, 1))) == 0).all()


def test_measures_of_distance_and_of_corruption():
    assert further.auroc_of_unseen(np.eye(4)[:2], np.eye(4), np.array([False, False, True, True])) == 100.0
    images = np.full((3, 8, 8, 1), 100, np.uint8)
    assert (further.corrupted("contrast", images) == 100).all() and (further.corrupted("blur", images) == 100).all()
    assert (further.corrupted("occlusion", images) == 0).sum() == 3 * 16
    assert 20 < further.corrupted("noise", images).std() < 50


def test_the_page_has_means_intervals_and_what_is_missing(tiny):
    tries = [Wanted("teacher", 2, 0, 0.1), Wanted("teacher", 2, 0, 0.2)]
    more = [Wanted("teacher", 2, 1, 0.2), Wanted("student", 2, 0, 0.2), Wanted("student", 2, 1, 0.2)]
    half, all_right = [True, False] * 4, [True] * 8
    found = [
        line(tries[0], 1.0),
        *(line(run, 50.0, half) for run in (tries[1], more[0])),
        *(line(run, 100.0, all_right) for run in more[1:]),
    ]
    text = page.page_of([page.Table(tiny, found)])
    assert "| the teacher | 2 | 50.00 ± 0.00 | 2 | 0.2 (0.1, 0.2) |" in text
    assert "- The student is better than the teacher at 2 epochs (+50.00), in linear probe." in text
    assert "| the student minus the teacher | **+50.00 [" in text
    assert "5 runs in 0 minutes of one core each; 4 of the planned runs are missing" in text


def test_the_committed_page_is_made_from_the_committed_lines():
    tables = [page.Table(plan, lines.read_lines(plan.name)) for plan in page.in_order()]
    assert page.page_of(tables) == Path("docs/evidence.md").read_text()


@pytest.mark.slow
def test_a_plan_is_run_once_and_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    options = argparse.Namespace(
        plan="tiny", lines=tmp_path / "lines", workdir=tmp_path / "runs", folder=None, minutes=10.0, only=None
    )
    progress = schedule.Progress(tiny, options)
    done = []
    while found := progress.next_run():
        wanted, teacher = found
        path = teacher and plans.workdir_of(tiny, teacher, options.workdir)
        if wanted not in progress.lines:
            result = runs.line_of(tiny, wanted, path, None, options.workdir)
            lines.append_line("tiny", result, options.lines)
            progress.lines[wanted] = result
            done.append(wanted)
    assert len(done) == len(set(done)) == 9  # 1 further rate, and 2 methods x 2 budgets x 2 seeds
    written = [json.loads(each) for each in (tmp_path / "lines" / "tiny.jsonl").read_text().splitlines()]
    assert [lines.wanted_of(each) for each in written] == done
    right = lines.unpacked(written[0]["correct"]["linear_top1"], written[0]["num_test"])
    assert 100 * right.mean() == pytest.approx(written[0]["scores"]["linear_top1"], abs=1e-3)
    assert schedule.Progress(tiny, options).next_run() is None
    assert not list(options.workdir.rglob("report.html"))
    assert command.status(argparse.Namespace(lines=options.lines)) == 0
    assert "tiny            9 runs done,    0 missing" in capsys.readouterr().out
