"""1,000 configs of valid and invalid values: each runs `eval_shape` of a step, or is refused with clear lines, nothing else."""

import functools
import json

import jax
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.data.input_pipeline import steps_per_epoch
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import assemble, config_check
from gensupcon_jax.run.config_check import check_combinations, check_config
from gensupcon_jax.similarities import LABEL_SIMILARITIES
from gensupcon_jax.text import flatten
from gensupcon_jax.weights import initial, teachers
from tests.tiny import tiny_config, tiny_dataset

DATA = tiny_dataset(channels=3)
# Values whose combination matters, in addition to those of the rules.
MORE = {
    "batch_size": [96, 10**30],
    "epochs": [3, 1e9],
    "steps": [10**12],
    "log_steps": [10**9],
    "mix.block": [3, 10**9],
    "loss.tile_size": [7, 10**9],
    "momentum_encoder.queue_size": [32, 48, 7],
    "optimizer.warmup_epochs": [1000],
    "evaluate.neighbors": [(5, 10**6)],
}
# The values tried for fields where tracing all of them would take minutes.
QUICK = {
    "model.name": ["resnet_small", "resnet18"],
    "augment.num_views": [1, 2, 3],
    "augment.local_views": [0, 1, 2],
    "loss.label_similarity": list(LABEL_SIMILARITIES),  # a matrix needs a file
    "augment.rand_num_operations": [0, 1],
}


def values_of_fields():
    """The values tried for each field: first those that its rule allows, then those that it refuses."""
    rules = {name: config_check.rule_of(name) for name in FIELDS}
    found = {
        name: (QUICK.get(name, [*rule.good, *MORE.get(name, ())]), [*rule.bad, object, b""])
        for name, rule in rules.items()
    }
    return found | {"loss.temprature": ([], [0.1])}


VALUES = values_of_fields()
# Good values twice: otherwise hardly any config would run.
PAIRS = [(name, value) for name, (good, bad) in VALUES.items() for value in (*good, *good, *bad)]
# What the compiled step does not depend on.
OUTSIDE = ("seed", "log_steps", "evaluate.", "checkpoint.", "dataset.", "teacher.", "model.weights")


def outcome_of(changes):
    """ "runs", or the lines of the refusal; anything else that is raised is a fault of the program."""
    config = tiny_config(batch_size=16, **{"model.name": "resnet_small"}).copy_and_resolve_references()
    with config.unlocked():
        for name, value in changes.items():
            *groups, field = name.split(".")
            group = functools.reduce(getattr, groups, config)
            if field in group:
                del group[field]  # without its type check: a recipe may hold any value
            group[field] = value
    try:
        check_config(config)
        check_combinations(config, DATA.train.num_images, num_devices=1)
        description = DATA.description()
        data = DataShape.of(description)
        lengths = assemble.lengths(config, steps_per_epoch(DATA.train.num_images, config.batch_size))
        fields = {
            name: value for name, value in config.teacher.items() if name not in ("weight", "temperature", "allow_poor")
        }
        assert teachers.load_teacher(**fields, dataset_description=description) is None
        source = initial.open_weights(config.model.weights, config.model.weights_step)
        assert initial.read_weights(source, assemble.encoder_of(config, data), data) is None
    except UserError as error:
        return str(error).split("\n")
    inside = {name: value for name, value in flatten(config.to_dict()).items() if not name.startswith(OUTSIDE)}
    _eval_shape_of_a_step(config, data, lengths, json.dumps(inside, sort_keys=True))
    return "runs"


_SEEN = set()


def _eval_shape_of_a_step(config, data, lengths, key):
    if key in _SEEN:
        return
    parts = assemble.build_parts(config, data, lengths, sharding.make_mesh(jax.devices()[:1]))
    state = assemble.abstract_state(parts)
    after, metrics = jax.eval_shape(
        parts.train_step_fn, state, {}, assemble.abstract_batch(config, data), jax.eval_shape(jax.random.key, 0)
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics["loss"].shape == ()
    _SEEN.add(key)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_config_runs_or_is_refused_in_clear_lines(part):
    outcomes = []

    @seed(part)
    @settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(PAIRS), min_size=2, max_size=6, unique_by=lambda pair: pair[0]))
    def draw(pairs):
        outcome = outcome_of(dict(pairs))
        outcomes.append(outcome)
        if outcome != "runs":
            assert outcome
            for line in outcome:
                assert line.strip() == line != ""
                assert len(line) < 600
                named = [name for name in VALUES if name in line]
                assert named, line  # which field to change

    draw()
    assert len(outcomes) >= 250
    assert sum(outcome == "runs" for outcome in outcomes) >= 10


def test_the_fuzz_values_are_labeled_correctly():
    for name in FIELDS:
        good, bad = VALUES[name]
        assert [value for value in good if config_check.refusal(name, value)] == [], name
        assert [value for value in bad if not config_check.refusal(name, value)] == [], name


def test_problems_of_fields_and_of_combinations_are_reported_together():
    changes = {"loss.temperature": -1, "optimizer.name": "adam", "optimizer.momentum": 1, "augment.num_views": 1}
    assert outcome_of(changes) == [
        "loss.temperature is -1; allowed: a number above 0",
        "augment.num_views is 1; allowed with objective contrastive: 2 or more",
        "optimizer.momentum is 1; allowed with adam: from 0 to below 1",
    ]
