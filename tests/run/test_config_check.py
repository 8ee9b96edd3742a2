"""Every field has a rule; all that is wrong is said at once, a line each."""

import pytest
from ml_collections import ConfigDict

from gensupcon_jax.configs import common, digits
from gensupcon_jax.errors import UserError
from gensupcon_jax.run.config_check import RULES, check_config, hint
from gensupcon_jax.store.workdir import flatten

PATHS = {
    "dataset.folder",
    "dataset.train_split",
    "dataset.validation_split",
    "dataset.test_split",
    "model.weights",
    "teacher.path",
}
FLAGS = {
    "dataset.skip_damaged",
    "classifier.beside", "loss.symmetric", "teacher.allow_poor", "optimizer.nesterov", "optimizer.exclude_bias_and_norm",
    "evaluate.linear_probe",
}  # fmt: skip


@pytest.mark.parametrize("recipe", [common, digits])
def test_the_recipes_fit_their_rules(recipe):
    check_config(recipe.get_config())


def test_every_field_has_a_rule_and_every_rule_a_field():
    assert set(flatten(common.get_config().to_dict())) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_refuses_nonsense_and_says_what_is_allowed(name):
    is_path, is_flag = RULES[name]("some/path") is None, RULES[name](True) is None
    assert is_path == (name in PATHS)
    assert is_flag == (name in FLAGS)
    for nonsense in (
        "",
        object(),
        float("nan"),
        -1,
        (),
        b"",
        *(() if is_path else ("nonsense",)),
        *(() if is_flag else (True,)),
    ):
        assert RULES[name](nonsense), nonsense


def test_all_problems_are_said_at_once_a_line_each():
    config = ConfigDict(common.get_config().to_dict())
    config.loss.temperature = -1.0
    config.mix.kind = "cutmx"
    config.mix.probability = 0.5
    del config.seed
    with pytest.raises(UserError) as error:
        check_config(config)
    assert str(error.value).splitlines() == [
        "mix.probability is no field of the config; see configs/common.py for all fields",
        "seed is missing; start from configs/common.py",
        "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix",
        "loss.temperature is -1.0; allowed: a number above 0",
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("seed", 0, -1),
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
        ("evaluate.neighbors", (1,), ()),
        ("optimizer.momentum", 0, 1.01),
        ("loss.base_temperature", None, 0),
        ("loss.temperature", 0.005, 0),
    ],
)
def test_bounds(name, good, bad):
    assert RULES[name](good) is None
    assert RULES[name](bad)


def test_a_near_miss_gets_a_hint():
    assert hint("loss.temprature") == "; did you mean loss.temperature?"
