"""1,000 configs of valid and invalid values: each runs `eval_shape` of a step, or is refused in clear lines, nothing else."""

import functools
import json

import jax
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.input_pipeline import steps_per_epoch
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import assemble
from gensupcon_jax.run.config_check import RULES, check_combinations, check_config
from gensupcon_jax.weights import initial, teachers
from tests.tiny import tiny_config, tiny_dataset

DATA = tiny_dataset(channels=3)
NAN, INF = float("nan"), float("inf")
# Values that are tried: first those that each field allows alone, then those that it does not.
VALUES = {
    "objective": (["contrastive", "cross_entropy", "linear_probe"], ["supcon", None]),
    "seed": ([0, 2**32 - 1], [-1, 2**32, 0.5]),
    "batch_size": ([1, 2, 16, 96, 97, 10**30], [0, -4, 1.5, "many"]),
    "epochs": ([0.01, 3, 1e9], [0, -1.0, NAN, INF]),
    "steps": ([None, 0, 1, 10**12], [-1, 2.5, "x"]),
    "images": ([None, 0, 5], [-1, NAN]),
    "log_steps": ([1, 10**9], [0, -1]),
    "augment.num_views": ([1, 2, 3], [0, -2, 2.0]),
    "augment.policy": (["simclr", "auto", "rand", "cutout", "none"], ["cutmix", 3]),
    "augment.crop_scale": ([(1.0, 1.0), (0.01, 1)], [(0, 1), (0.9, 0.1), (0.5,), (NAN, 1), "0.2"]),
    "augment.crop_ratio": ([(1, 1), (0.01, 100)], [(0, 1), (-1, 1), ()]),
    "augment.hue": ([0, 0.5], [0.6, -0.1]),
    "augment.blur_sigma": ([(0.1, 2), (1e-9, 1e-9)], [(0, 1), (2, 1)]),
    "augment.auto_policy": (["imagenet"], ["mnist", None]),
    "augment.rand_num_operations": ([0, 1], [-1, 0.5]),
    "augment.cutout_size": ([0, 1, 0.5], [1.5, -1]),
    "mix.kind": (["none", "mixup", "cutmix", "mixup_cutmix"], ["both", True]),
    "mix.alpha": ([1e-6, 1, 1e6], [0, -1, INF]),
    "mix.per": (["batch", "image"], ["step"]),
    "mix.block": ([1, 2, 3, 16, 10**9], [0, -1, 0.5]),
    "model.name": (["resnet_small", "resnet18"], ["vit", 18]),
    "model.width": ([None, 1, 4], [0, -8, 2.5]),
    "model.head": (["mlp", "linear"], ["none", "big"]),
    "model.embedding_dim": ([1, 8], [0, 8.5]),
    "model.dtype": (["float32", "bfloat16"], ["float16", "int8"]),
    "model.batch_norm": (["sync", "local"], ["none"]),
    "model.weights": ([None, "nowhere/at/all"], [3, ""]),
    "classifier.label_smoothing": ([0, 0.9], [1, -0.1]),
    "classifier.beside": ([True, False], ["yes", 1]),
    "loss.mode": (["all", "one", "momentum"], ["none", None]),
    "loss.symmetric": ([True, False], [0]),
    "loss.temperature": ([1e-6, 0.1, 100], [0, -1, NAN, INF]),
    "loss.base_temperature": ([None, 0.07], [0, "none"]),
    "loss.normalizer": (["similarity", "count"], ["sum"]),
    "loss.tile_size": ([None, 1, 7, 10**9], [0, 1.5]),
    "momentum_encoder.queue_size": ([0, 16, 32, 48, 7], [-16, 0.5]),
    "momentum_encoder.momentum": ([0, 1, 0.99], [1.1, -1]),
    "momentum_encoder.schedule": (["constant", "cosine"], ["linear"]),
    "teacher.kind": (["none", "callable", "workdir", "stablehlo", "weights"], ["model"]),
    "teacher.path": ([None, "nowhere"], [""]),
    "teacher.mean": ([None, (0.5,), (0.5, 0.5, 0.5)], [(0.5, 0.5), "x"]),
    "teacher.weight": ([0, 1, INF], [-1, NAN]),
    "optimizer.name": (["sgd", "lars", "rmsprop", "adam", "adamw"], ["lamb"]),
    "optimizer.learning_rate": ([1e-12, 1e12], [0, NAN]),
    "optimizer.schedule": (["cosine", "step", "constant"], ["linear"]),
    "optimizer.schedule_per": (["step", "epoch"], ["image"]),
    "optimizer.warmup_epochs": ([0, 1, 1000], [-1]),
    "optimizer.warmup_steps": ([None, 0, 5], [-1]),
    "optimizer.decay_epochs": ([(1,), (3, 2, 1)], [(), (-1,), 5]),
    "optimizer.momentum": ([0, 0.9, 1], [1.5]),
    "optimizer.second_momentum": ([0, 0.9, 1], [2]),
    "optimizer.weight_decay_mode": (["coupled", "decoupled"], ["l2"]),
    "optimizer.max_skipped_steps": ([0, 3], [-1, 0.5]),
    "evaluate.every_epochs": ([0, 0.5], [-1]),
    "evaluate.neighbors": ([(1,), (5, 10**6)], [(), (0,), 5]),
    "evaluate.batch_size": ([1, 7], [0]),
    "checkpoint.every_epochs": ([0.001, 5], [0]),
    "checkpoint.keep": ([1, 9], [0]),
    "loss.temprature": ([], [0.1]),
}  # fmt: skip
PAIRS = [(name, value) for name, (good, bad) in VALUES.items() for value in (*good, *bad)]
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
                del group[field]  # its type is the field's own business: rules see what a recipe may hold
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
        assert initial.read_weights(config.model.weights, assemble.encoder_of(config, data), data) is None
    except UserError as error:
        return str(error).split("\n")
    flat = {name: value for name, value in changes.items() if not name.startswith(OUTSIDE)}
    _eval_shape_of_a_step(config, data, lengths, json.dumps(flat, sort_keys=True))
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
                named = [name for name in (*RULES, *VALUES) if name in line]
                assert named, line  # which field to change

    draw()
    assert len(outcomes) >= 250
    assert sum(outcome == "runs" for outcome in outcomes) >= 10


@pytest.mark.parametrize("name", VALUES)
def test_the_values_of_the_fuzz_test_are_what_they_are_called(name):
    good, bad = VALUES[name]
    if name in RULES:
        assert [value for value in good if RULES[name](value)] == []
        assert [value for value in bad if not RULES[name](value)] == []


def test_all_that_is_wrong_is_said_at_once_fields_and_combinations():
    changes = {"loss.temperature": -1, "optimizer.name": "adam", "optimizer.momentum": 1, "augment.num_views": 1}
    assert outcome_of(changes) == [
        "loss.temperature is -1; allowed: a number above 0",
        "augment.num_views is 1; allowed with objective contrastive: 2 or more",
        "optimizer.momentum is 1; allowed with adam: from 0 to below 1",
    ]
