"""What an evaluation takes in place of a choice where there is no validation split."""

import json

import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation import probe, scoring
from gensupcon_jax.evaluation.choices import Choices, choices_of_run, default_choices
from gensupcon_jax.evaluation.features import Features

DEFAULTS = Choices(10, 0.01)


@pytest.mark.parametrize(
    ("candidates", "middle"), [((1, 3, 5, 10, 20, 50, 200), 10), ((7,), 7), ((9, 1), 1), ((4, 2, 8, 6), 4)]
)
def test_the_middle_candidate_is_the_default_of_an_even_number_the_lower_one(candidates, middle):
    assert default_choices(candidates, candidates) == Choices(middle, middle, "defaults")


def features(num=60):
    rng = np.random.default_rng(0)
    classes = np.arange(num) % 3
    values = (2 * np.eye(3)[classes] + rng.standard_normal((num, 3))).astype(np.float32)
    return {"train": Features(values[:40], classes[:40]), "test": Features(values[40:], classes[40:])}


def test_without_validation_the_only_candidate_is_used_and_no_score_is_known():
    found = features()
    with_validation = found | {"validation": found["train"]}
    settings = {"temperature": 0.07, "num_classes": 3}
    nearest = scoring.evaluate_knn(found, neighbors=(5,), **settings)
    assert (nearest.setting, nearest.validation_score) == (5, None)
    same = scoring.evaluate_knn(with_validation, neighbors=(5,), **settings)
    np.testing.assert_array_equal(nearest.test_predictions, same.test_predictions)
    assert scoring.evaluate_knn(found, neighbors=(500,), **settings).setting == 40
    fitted, expected = (probe.evaluate_linear(each, penalties=(0.1,)) for each in (found, with_validation))
    assert (fitted.outcome.setting, fitted.outcome.validation_score) == (0.1, None)
    np.testing.assert_array_equal(fitted.outcome.test_predictions, expected.outcome.test_predictions)
    np.testing.assert_array_equal(fitted.fitted.weight, expected.fitted.weight)
    of_one_class = found | {"train": found["train"]._replace(classes=np.zeros(40, int))}
    assert probe.evaluate_linear(of_one_class, penalties=(0.1,)).outcome.validation_score is None


def finished(folder, **results):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "report.html").write_text("")
    return str(folder)


def test_those_of_another_run(tmp_path):
    chosen = finished(tmp_path / "chosen", num_validation=10, knn_neighbors=3, linear_penalty=0.1)
    assert choices_of_run(chosen, DEFAULTS) == Choices(3, 0.1, chosen)
    no_probe = finished(tmp_path / "no_probe", num_validation=10, knn_neighbors=3)
    assert choices_of_run(no_probe, DEFAULTS) == Choices(3, 0.01, no_probe)


def test_a_run_that_chose_nothing_is_refused(tmp_path):
    whole = finished(tmp_path / "whole", num_validation=0, knn_neighbors=10)
    for folder, problem in (
        (whole, "has no validation split and chose nothing"),
        (str(tmp_path / "nowhere"), "has no results"),
        (finished(tmp_path / "other", name="x"), "has no results"),
    ):
        with pytest.raises(
            UserError, match=f"evaluate.choices_from is .*{problem}; allowed: the workdir of a finished"
        ):
            choices_of_run(folder, DEFAULTS)
    (tmp_path / "whole" / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"whose results cannot be read .*; allowed: the workdir"):
        choices_of_run(whole, DEFAULTS)
