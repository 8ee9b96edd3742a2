"""Every field is checked by the rule of its declaration; all problems are reported together, one line each."""

import pytest
from ml_collections import ConfigDict

from gensupcon_jax.configs import common, digits
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import config_check
from gensupcon_jax.run.config_check import check_config, refusal, rule_of
from tests.tiny import tiny_config


def test_the_recipes_fit_their_rules():
    for recipe in (common, digits):
        check_config(recipe.get_config())


def test_every_field_refuses_nonsense_and_reports_what_is_allowed():
    wrong = []
    for name in FIELDS:
        rule = rule_of(name)
        nonsense = ["", object(), float("nan"), -1, b"", *rule.bad]
        nonsense += [] if rule.allows(()) else [()]
        nonsense += [] if rule.allows("some/path") else ["nonsense"]
        nonsense += [] if rule.allows(False) else [True]
        wrong += [(name, value) for value in nonsense if refusal(name, value) != rule.words]
        wrong += [(name, value) for value in rule.good if refusal(name, value) is not None]
    assert wrong == []


def test_all_problems_are_reported_together_one_line_each():
    config = ConfigDict(common.get_config().to_dict())
    config.loss.temperature = -1.0
    config.mix.kind = "cutmx"
    config.mix.probability = 0.5
    del config.seed
    with pytest.raises(UserError) as error:
        check_config(config)
    assert str(error.value).splitlines() == [
        "mix.probability is not a field of the config; see configs/fields.py for all fields",
        "seed is missing; start from configs/common.py",
        "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix",
        "loss.temperature is -1.0; allowed: a number above 0",
    ]


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, True),
        ({"augment.num_views": 3, "loss.mode": "one"}, True),
        ({"loss.mode": "momentum"}, True),
        ({"loss.mode": "momentum", "momentum_encoder.queue_size": 64}, False),
        ({"objective": "cross_entropy"}, False),
    ],
)
def test_one_image_has_nothing_to_be_compared_with(changes, is_refused):
    config = common.get_config()
    config.update_from_flattened_dict({"batch_size": 1} | changes)
    problems = [
        problem for names, found in config_check.COMBINATIONS if "batch_size" in names for problem in found(config)
    ]
    assert (
        problems
        == [
            "batch_size is 1: an image has no others to be compared with; allowed with objective contrastive: 2 or more, or "
            "loss.mode momentum with momentum_encoder.queue_size above 0"
        ]
        * is_refused
    )


def test_a_queue_without_labels_has_no_classes_to_balance():
    config = common.get_config()
    config.update_from_flattened_dict(
        {"loss.mode": "momentum", "momentum_encoder.queue_labels": False, "loss.denominator": "balanced"}
    )
    (problem,) = [each for _, found in config_check.COMBINATIONS for each in found(config)]
    assert problem == (
        "momentum_encoder.queue_labels is False; allowed with loss.denominator balanced, which counts the classes of all "
        "contrasts: True"
    )
    config.loss.denominator = "plain"
    assert not [each for _, found in config_check.COMBINATIONS for each in found(config)]


def test_bounds():
    bounds = [
        ("seed", 0, -1),
        ("seed", 2**32 - 1, 2**32),
        ("batch_size", 1, 2.0),
        ("steps", 0, -1),
        ("epochs", 0.5, float("inf")),
        ("augment.crop_scale", (0.2, 1.0), (0.0, 1.0)),
        ("augment.crop_scale", [0.5, 0.5], (0.6, 0.5)),
        ("augment.crop_ratio", (1, 2), (1,)),
        ("augment.hue", 0.5, 0.51),
        ("augment.num_views", 1, 0),
        ("teacher.weight", float("inf"), -1.0),
        ("classifier.label_smoothing", 0.1, 1.0),
        ("teacher.mean", (0.5,), (0.5, 0.5)),
        ("dataset.name", "tfds:cifar10", "tfds:"),
        ("dataset.train_split", "train[:90%]", True),
        ("dataset.skip_damaged", True, "some/path"),
        ("model.weights", "some/path", True),
        ("evaluate.neighbors", (1,), ()),
        ("optimizer.momentum", 0, 1.01),
        ("loss.base_temperature", None, 0),
        ("loss.temperature", 0.005, 0),
        ("loss.temperature", 0.005, None),
    ]
    wrong = [case for case in bounds if refusal(case[0], case[1]) or not refusal(case[0], case[2])]
    assert wrong == []


def test_a_name_added_to_a_table_is_accepted_and_listed(monkeypatch):
    for field, table in (
        ("model.name", "encoders"),
        ("optimizer.name", "optimizers"),
        ("teacher.architecture", "encoders"),
    ):
        assert refusal(field, "from_outside")
        monkeypatch.setitem(config_check.TABLES, table, ("known", "from_outside"))
        assert refusal(field, "from_outside") is None
        assert refusal(field, "x") == "known, from_outside"
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, []),
        ({"teacher.kind": "callable", "teacher.weight": 2.0}, []),
        ({"teacher.weight": float("inf")}, []),  # without a teacher it means nothing
        (
            {"teacher.kind": "callable", "teacher.weight": float("inf")},
            ["teacher.weight is inf, so prototypes would learn their classes from the teacher alone; allowed with "
             "prototypes.use: a finite number"],
        ),
        (
            {"classifier.beside": True},
            ["classifier.beside is True; allowed with prototypes.use, as prototypes are the classifier: False"],
        ),
        (
            {"objective": "cross_entropy", "augment.num_views": 1},
            ["prototypes.use is True; allowed with objective cross_entropy: False"],
        ),
    ],
)  # fmt: skip
def test_prototypes_need_labels_and_are_the_classifier(changes, sentences):
    config = common.get_config()
    config.prototypes.use = True
    config.update_from_flattened_dict(changes)
    if not sentences:
        check_config(config)
        return
    with pytest.raises(UserError) as error:
        check_config(config)
    assert str(error.value).splitlines() == sentences


@pytest.mark.parametrize(
    ("name", "is_refused"),
    [
        ("digits", True),
        ("folder:photos", True),
        ("tfds:mnist", True),
        ("arrays:own.npz", True),
        ("arrays", False),
        ("csv:list.csv", False),
        ("own:photos", False),
    ],
)
def test_columns_are_those_of_a_list(name, is_refused):
    config = tiny_config(**{"dataset.name": name, "dataset.path_column": "file", "dataset.label_columns": "kind"})
    expected = [
        f"dataset.{field} is {value!r}, but dataset.name is {name!r}, which is no list of images; allowed: None, or csv:<file> "
        "or parquet:<file>"
        for field, value in (("path_column", "file"), ("label_columns", "kind"))
    ]
    assert config_check.column_problems(config) == (expected if is_refused else [])
